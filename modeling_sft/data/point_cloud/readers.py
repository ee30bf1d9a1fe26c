"""Which point-cloud data sets can be read, and with which options: files of one's own, and what others add."""

from ..registry import ReaderEntry
from .folder import read_folder

READERS: dict[str, ReaderEntry] = {"folder": ReaderEntry(read_folder, ("num_mesh_points", "test_fraction"))}
