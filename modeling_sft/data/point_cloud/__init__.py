"""Data of point clouds: readers of own files, data sets, collators.

A reader is called with the data folder and the options it declares, and returns `datasets.Dataset` rows by split
("train", "test", and "validation" where the source has one). `READERS` lists them by name.
"""
