"""Readers of point-cloud data sets, one module per source, each giving rows of one schema.

A reader is called with the data folder and the options it declares, and returns `datasets.Dataset` rows by split
("train", "test", and "validation" where the source has one). `READERS` lists them by name.
"""

from .registry import READERS, ReaderEntry
from .rows import point_cloud_rows

__all__ = ["READERS", "ReaderEntry", "point_cloud_rows"]
