"""Readers of graph data sets, one module per source, each giving rows of one schema.

A reader is called with the data folder and the options it declares, and returns `datasets.Dataset` rows by split
("train", and "test" and "validation" where the source has them). `GRAPH_READERS` lists them by name.
"""

from .registry import GRAPH_READERS
from .rows import graph_rows

__all__ = ["GRAPH_READERS", "graph_rows"]
