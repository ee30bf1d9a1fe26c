"""Reading the files of point-cloud data sets; a damaged file gives an error that says what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from modeling_sft.data.files import damaged

logger = logging.get_logger(__name__)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped and without empty lines.

    Raises:
        ValueError: if the file is not a text, or has no lines.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise damaged(path, "it is no text") from error
    lines = [line for line in lines if line]
    if not lines:
        raise damaged(path, "it is empty")
    return lines


def read_class_names(path: Path, expected: Sequence[str]) -> list[str]:
    """The names that a file lists, one per line; their order gives the labels.

    Raises:
        ValueError: if they are not the expected names, in any order.
    """
    names = read_lines(path)
    if sorted(names) != sorted(expected):
        differing = sorted(set(names) ^ set(expected)) or ["one that is there twice"]
        raise damaged(path, f"it should list the {len(expected)} class names; they differ in {', '.join(differing)}")
    return names


def read_table(path: Path, num_columns: int, delimiter: str | None = None) -> NDArray[np.float32]:
    """Reads a text file with one point per line.

    Args:
        path: the file.
        num_columns: numbers on each line.
        delimiter: the separator of the numbers; white space by default.

    Returns:
        (lines, num_columns) finite values.

    Raises:
        ValueError: if a line has other content.
    """
    lines = read_lines(path)
    try:
        table = np.loadtxt(lines, dtype=np.float32, delimiter=delimiter, comments=None, ndmin=2)
    except ValueError as error:
        raise damaged(path, str(error).rstrip(".")) from error
    if table.shape[1] != num_columns:
        raise damaged(path, f"its lines have {table.shape[1]} numbers; expected {num_columns}")
    if not np.isfinite(table).all():
        raise damaged(path, "it holds NaN or infinite values")
    return table


def warn_if_incomplete(name: str, counts: Mapping[str, int], official_counts: Mapping[str, int]) -> None:
    """Logs a warning for each split whose number of clouds is not the official one."""
    for split, official in official_counts.items():
        if counts[split] != official:
            logger.warning(
                f"{name} has {counts[split]} {split} clouds here, officially {official}: do not compare results with "
                "published ones."
            )


def check_clouds(path: Path, name: str, clouds: NDArray[Any], columns: int, kinds: str = "f") -> None:
    """Checks an array of clouds.

    Args:
        path: the file, for the message.
        name: the name of the array, for the message.
        clouds: the array; it must have shape (clouds, points, `columns`), be finite and not be empty.
        columns: the last dimension of the array.
        kinds: NumPy type kinds that are accepted.

    Raises:
        ValueError: if the array does not fit.
    """
    if clouds.ndim != 3 or clouds.shape[2] != columns or clouds.dtype.kind not in kinds or clouds.size == 0:
        wanted = "floats" if kinds == "f" else "numbers"
        raise damaged(
            path,
            f"{name} has shape {clouds.shape} and type {clouds.dtype}; expected (shapes, points, {columns}) of "
            f"{wanted}",
        )
    if not np.isfinite(clouds).all():
        raise damaged(path, f"{name} holds NaN or infinite values")
