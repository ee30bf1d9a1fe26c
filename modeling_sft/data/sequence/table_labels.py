"""What kind of labels a column has, and the labels as the column `label` of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import bad_value, few

if TYPE_CHECKING:
    from datasets import Features


TASKS = ("classification", "regression")


def values_of_task(path: Path, column: str, values: Sequence[Any], task: str | None) -> Sequence[Any]:
    """The values as integers or strings for "classification", as floats for "regression", as they are for None.

    Raises:
        ValueError: for a number that is not whole as a class; other values are left to `encode_labels`.
    """
    if task is None:
        return values
    if task == "regression":
        return [float(value) if isinstance(value, int) else value for value in values]
    classes = []
    for row, value in enumerate(values):
        if isinstance(value, float) and not value.is_integer():
            raise bad_value(path, column, row, value, "no class: classes are whole numbers or names")
        classes.append(int(value) if isinstance(value, float) else value)
    return classes


def encode_labels(path: Path, column: str, values: Sequence[Any], names: Sequence[str] | None) -> list[Any]:
    """The labels as they are stored.

    Args:
        path: the file, for the messages.
        column: its column, for the messages.
        values: all strings, all integers, all numbers or all lists of numbers.
        names: the classes, in the order of their ids; None for numbers and lists.

    Returns:
        The ids, or the numbers or lists as floats.

    Raises:
        ValueError: for a value of no class or, without `names`, one that is no finite number or list of them.
    """
    labels: list[Any] = []
    ids: dict[str | None, int] = {name: number for number, name in enumerate(names or ())}
    for row, value in enumerate(values):
        if names is not None:
            name = str(value) if isinstance(value, (str, int)) else None
            if name not in ids:
                raise bad_value(path, column, row, value, f"none of the classes of the training data ({few(names)})")
            labels.append(ids[name])
        elif isinstance(value, (list, tuple)) and value and all(map(_is_number, value)):
            labels.append([float(number) for number in value])
        elif _is_number(value):
            labels.append(float(value))
        else:
            raise bad_value(path, column, row, value, "no finite number or list of numbers")
    return labels


def class_names(path: Path, column: str, values: Sequence[Any]) -> list[str] | None:
    """The names of classes, sorted, if the values are integers or strings; None if they are for regression.

    Raises:
        ValueError: if a value is missing, or if they are of different kinds.
    """
    for row, value in enumerate(values):
        if value is None or value == "":
            raise bad_value(path, column, row, value, "no label")
        if isinstance(value, str) != isinstance(values[0], str):
            raise bad_value(path, column, row, value, f"of another kind than the first, {values[0]!r}")
    if not all(isinstance(value, (str, int)) for value in values):
        return None
    # Integers in the order of numbers: 10 after 9.
    return [str(value) for value in sorted(set(values))]


def label_feature(labels: Sequence[Any], names: Sequence[str] | None) -> Features:
    """The feature of encoded labels."""
    from datasets import ClassLabel, Value
    from datasets import Sequence as SequenceFeature

    if names is not None:
        return ClassLabel(names=list(names))
    return SequenceFeature(Value("float32")) if isinstance(labels[0], list) else Value("float32")


def check_one_shape(path: Path, column: str, labels: Sequence[Any], like: Any) -> None:
    """Checks that all labels are numbers, or all are lists of one length, as `like` is.

    Raises:
        ValueError: for one that is not; the message names the row, counted from 0.
    """
    expected = len(like) if isinstance(like, list) else None
    for row, label in enumerate(labels):
        if (len(label) if isinstance(label, list) else None) != expected:
            wanted = "number" if expected is None else f"list of {expected} numbers"
            raise bad_value(path, column, row, label, f"no {wanted} as in the first row of the training data")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
