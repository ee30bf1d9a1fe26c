"""Opening the files of a data set: absent and damaged ones give an error that says what was expected."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def dataset_folder(name: str, data_dir: str | os.PathLike[str] | None, layout: str, *other_names: str) -> Path:
    """The folder `data_dir`/`name`, or the first that there is of the same under `other_names`.

    Raises:
        ValueError: without `data_dir`, or if there is no such folder; the message ends with `layout`.
    """
    if data_dir is None:
        raise ValueError(f"data_dir is needed for {name}; {layout}")
    for candidate in (name, *other_names):
        if (Path(data_dir) / candidate).is_dir():
            return Path(data_dir) / candidate
    raise ValueError(f"data_dir {str(data_dir)!r} has no folder {name}; {layout}")


def existing_file(path: Path, layout: str) -> Path:
    """The path, if it is a file.

    Raises:
        ValueError: if it is none; the message ends with `layout`.
    """
    # Unlike Path.is_file, this is False for impossible names, as from a damaged list.
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path}; {layout}")
    return path


def damaged(path: Path, problem: str) -> ValueError:
    """The error for a file whose content does not fit."""
    return ValueError(f"{path} is damaged or of another kind: {problem}.")


def read_archive(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Reads arrays of an npz file; never unpickles.

    Raises:
        ValueError: if the file cannot be read or lacks one of the names.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    # Damaged archives raise almost anything: zip, zlib, struct, key, value, memory and end-of-file errors.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); it is damaged, truncated or of another kind. "
            "Copy it again."
        ) from error


def check_labels(path: Path, name: str, labels: NDArray[Any], shape: tuple[int, ...], num_classes: int) -> None:
    """Checks integer labels of the given shape from 0 to `num_classes` - 1.

    Raises:
        ValueError: if they do not fit.
    """
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise damaged(path, f"{name} has shape {labels.shape} and type {labels.dtype}; expected {shape} of integers")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise damaged(path, f"{name} is not between 0 and {num_classes - 1}, the last class")


def check_class_names(path: Path, class_names: NDArray[Any]) -> list[str]:
    """The names as a list of distinct strings.

    Raises:
        ValueError: if they are something else.
    """
    if class_names.ndim != 1 or class_names.dtype.kind != "U" or len(set(class_names.tolist())) < len(class_names):
        raise damaged(path, "class_names is no list of distinct names")
    return [str(name) for name in class_names]
