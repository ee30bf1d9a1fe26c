"""Readers of sequence data sets, one module per source, each giving rows of one schema.

A reader is called with the data folder and the options it declares, and returns `datasets.Dataset` rows by split
("train", and "test" and "validation" where the source has them). `SEQUENCE_READERS` lists them by name.
"""

from .registry import SEQUENCE_READERS

__all__ = ["SEQUENCE_READERS"]
