"""Opening the files of a data set: absent and damaged ones give an error that says what was expected."""

import os
from pathlib import Path


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
