"""Which sequence data sets can be read, and with which options."""

from __future__ import annotations

from ..registry import ReaderEntry
from .aan import read_aan
from .images import read_cifar10, read_cifar10_gray, read_mnist
from .imdb import read_imdb
from .list_ops import read_list_ops, read_lra_list_ops
from .pathfinder import read_pathfinder32, read_pathx
from .plain_text import read_plain_text
from .text_files import read_text_files

LIST_OPS_OPTIONS = (
    "num_train",
    "num_validation",
    "num_test",
    "seed",
    "min_length",
    "max_length",
    "max_depth",
    "max_args",
)

SEQUENCE_READERS: dict[str, ReaderEntry] = {
    "aan": ReaderEntry(read_aan),
    "cifar10": ReaderEntry(read_cifar10),
    "cifar10_gray": ReaderEntry(read_cifar10_gray),
    "imdb": ReaderEntry(read_imdb),
    "listops": ReaderEntry(read_list_ops),
    "lra_listops": ReaderEntry(read_lra_list_ops, LIST_OPS_OPTIONS),
    "mnist": ReaderEntry(read_mnist),
    "pathfinder32": ReaderEntry(read_pathfinder32, ("difficulty",)),
    "pathx": ReaderEntry(read_pathx, ("difficulty",)),
    "plain_text": ReaderEntry(read_plain_text, ("by",)),
    "text_files": ReaderEntry(read_text_files, ("text_column", "label_column", "pair_column", "test_fraction")),
}
