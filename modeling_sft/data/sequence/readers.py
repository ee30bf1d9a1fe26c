"""Which sequence data sets can be read, and with which options: files of one's own, and what others add."""

from ..registry import ReaderEntry
from .plain_text import read_plain_text
from .text_files import read_text_files

SEQUENCE_READERS: dict[str, ReaderEntry] = {
    "plain_text": ReaderEntry(read_plain_text, ("by",)),
    "text_files": ReaderEntry(read_text_files, ("text_column", "label_column", "pair_column", "test_fraction")),
}
