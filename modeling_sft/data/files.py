"""Opening the files of a data set: absent and damaged ones give an error that says what was expected."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SPLITS = ("train", "validation", "test")


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


def split_files(folder: Path, suffixes: Iterable[str], layout: str) -> dict[str, Path]:
    """The files of a folder by split: `train`, and `validation` and `test` where there are some.

    Raises:
        ValueError: if a split has files of two kinds, or there is no `train`; then the message ends with `layout`.
    """
    paths = {}
    for split in SPLITS:
        found = [path for suffix in suffixes if (path := folder / f"{split}{suffix}").is_file()]
        if len(found) > 1:
            raise ValueError(f"{folder} has both {found[0].name} and {found[1].name}: leave one of them.")
        if found:
            paths[split] = found[0]
    if "train" not in paths:
        raise ValueError(f"{folder} has no file train; {layout}")
    return paths


def damaged(path: Path, problem: str) -> ValueError:
    """The error for a file whose content does not fit."""
    return ValueError(f"{path} is damaged or of another kind: {problem}.")


def bad_value(path: Path, column: str, row: int, value: Any, problem: str) -> ValueError:
    """The error for a value that does not fit, in a row that is counted from 0."""
    value = value.item() if hasattr(value, "item") else value
    return damaged(path, f"column {column!r} of row {row} (counted from 0) is {value!r}, {problem}")


def few(names: Iterable[Any]) -> str:
    """The first ten names, for messages."""
    written = [str(name) for name in names]
    return ", ".join(written[:10]) + (", ..." if len(written) > 10 else "")
