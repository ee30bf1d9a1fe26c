"""Point-cloud data sets that can be read, and their options: own files, digits, and what others add."""

from ..registry import ReaderEntry
from .digits import read_digits
from .folder import read_folder

READERS: dict[str, ReaderEntry] = {
    "digits": ReaderEntry(read_digits),
    "folder": ReaderEntry(read_folder, ("num_mesh_points", "test_fraction")),
}
