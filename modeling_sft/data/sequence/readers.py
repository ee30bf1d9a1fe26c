"""Which sequence data sets can be read, by name: files of one's own, and what others add."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..registry import ReaderEntry, read_by_name
from .plain_text import read_plain_text
from .text_files import read_text_files

if TYPE_CHECKING:
    from datasets import DatasetDict

SEQUENCE_READERS: dict[str, ReaderEntry] = {
    "plain_text": ReaderEntry(read_plain_text, ("by",)),
    "text_files": ReaderEntry(
        read_text_files, ("text_column", "label_column", "pair_column", "test_fraction", "task")
    ),
}


def load_sequence_dataset(name: str, data_dir: str | os.PathLike[str] | None = None, **options: Any) -> DatasetDict:
    """Reads a data set of texts, images taken pixel by pixel or other sequences.

    Args:
        name: one of `SEQUENCE_READERS`; docs/sequence_data.md lists them with their layouts.
        data_dir: folder that holds one folder for each data set; for "text_files" and "plain_text", the folder itself.
            "lra_listops" does without.
        options: what the reader of this data set accepts, see there.

    Returns:
        DatasetDict with `train` and, where the source has them, `validation` and `test`. Columns: `text`, with
        `text_pair` for pairs, or `values` (L, F) float32, as NumPy arrays; and `label`, a ClassLabel with the names,
        or float32 for regression, or none for texts without labels.

    Raises:
        ValueError: for an unknown name or option, for absent files (the message shows the layout and where to get
            them) and for damaged ones.
        ImportError: for files that need an optional library that is not installed.
    """
    return read_by_name(SEQUENCE_READERS, "sequence", "sequences", name, data_dir, options)
