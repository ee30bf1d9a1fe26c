"""Contents of the files of benchmark sets: archives, lines, labels and names of classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling_sft.data.files import damaged
from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.unpacking import check_unpacked_size


def read_archive(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Reads arrays of an npz file; never unpickles.

    Raises:
        ValueError: if the file cannot be read or lacks one of the names.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            check_unpacked_size(path, sum(member.file_size for member in file.zip.infolist()))
            return {name: file[name] for name in names}
    # A damaged archive may raise zip, zlib, struct, key, value, memory and end-of-file errors, so catch them all.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); it is damaged, truncated or of another kind. "
            "Copy it again."
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file without line ends; an empty last line does not count.

    Raises:
        ValueError: if the file is not such a text.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no UTF-8 text ({error})") from error
    return lines[:-1] if not lines[-1] else lines


def check_labels(path: Path, name: str, labels: NDArray[Any], shape: tuple[int, ...], num_classes: int) -> None:
    """Checks that labels are integers of the given shape from 0 to `num_classes` - 1.

    Raises:
        ValueError: if they are not.
    """
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise damaged(path, f"{name} has shape {labels.shape} and type {labels.dtype}; expected {shape} of integers")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise damaged(path, f"{name} is not between 0 and {num_classes - 1}, the last class")


def check_class_ids(path: Path, labels: Sequence[Any], num_classes: int) -> None:
    """Checks that labels are integers from 0 to `num_classes` - 1.

    Raises:
        ValueError: if they are not.
    """
    if any(isinstance(label, bool) or not isinstance(label, int) for label in labels):
        raise damaged(path, "column 'label' has something else than integers")
    check_labels(path, "label", np.array(labels, dtype=np.int64), (len(labels),), num_classes)


def check_class_names(path: Path, class_names: NDArray[Any]) -> list[str]:
    """The names as a list of distinct strings.

    Raises:
        ValueError: if they are not distinct strings.
    """
    if class_names.ndim != 1 or class_names.dtype.kind != "U" or len(set(class_names.tolist())) < len(class_names):
        raise damaged(path, "class_names is no list of distinct names")
    return [str(name) for name in class_names]


def read_parquet(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Reads columns of a parquet file.

    Raises:
        ValueError: if the file cannot be read, is empty or lacks one of the columns.
    """
    parquet = import_optional("pyarrow.parquet", "sequences")
    try:
        table = parquet.read_table(path)
    # A damaged file raises OSError or one of several errors of Arrow.
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
