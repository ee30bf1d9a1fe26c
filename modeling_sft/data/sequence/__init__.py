"""Data of sequences: readers of own files, data sets, collators.

A reader is called with the data folder and the options it declares, and returns `datasets.Dataset` rows by split
("train", and "test" and "validation" where the source has them). `SEQUENCE_READERS` lists them by name.
"""
