"""Reading the tables of a data set: damaged ones give an error that says what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...hub.optional import import_optional
from ..files import check_labels, damaged


def read_parquet(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Reads columns of a parquet file.

    Raises:
        ValueError: if the file cannot be read, is empty or lacks one of the columns.
    """
    parquet = import_optional("pyarrow.parquet", "sequences")
    try:
        table = parquet.read_table(path)
    # Damaged files raise OSError and several errors of Arrow.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); it is damaged, truncated or of another kind. "
            "Copy it again."
        ) from error
    absent = [name for name in names if name not in table.column_names]
    if absent:
        raise damaged(path, f"it has no column {absent[0]!r} but {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise damaged(path, "it has no rows")
    return {name: table.column(name).to_pylist() for name in names}


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file without their ends; a last empty one does not count.

    Raises:
        ValueError: if it is no such text.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no UTF-8 text ({error})") from error
    return lines[:-1] if not lines[-1] else lines


def check_texts(path: Path, name: str, texts: Sequence[Any]) -> None:
    """Checks that every row has a text.

    Raises:
        ValueError: if one is empty or no string; the message names the row, counted from 0.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise damaged(path, f"column {name!r} of row {row} (counted from 0) is {text!r}, not a text")


def check_class_ids(path: Path, labels: Sequence[Any], num_classes: int) -> None:
    """Checks integer labels from 0 to `num_classes` - 1.

    Raises:
        ValueError: if they are something else.
    """
    if any(isinstance(label, bool) or not isinstance(label, int) for label in labels):
        raise damaged(path, "column 'label' has something else than integers")
    check_labels(path, "label", np.array(labels, dtype=np.int64), (len(labels),), num_classes)
