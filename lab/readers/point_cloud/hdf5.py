"""Clouds in HDF5 files; data that a damaged file has lost give an error instead of zeros."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling_sft.data.files import damaged, existing_file
from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.unpacking import check_unpacked_size

from ..contents import check_labels
from .files import check_clouds, read_lines


def read_hdf5(path: Path, names: Iterable[str], optional_names: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
    """Reads numeric arrays of an HDF5 file.

    Args:
        path: the file.
        names: the arrays it must have.
        optional_names: arrays to read if the file has them.

    Raises:
        ImportError: if h5py is not installed.
        ValueError: if the file cannot be read, lacks one of the names or does not hold an array completely.
    """
    h5py = import_optional("h5py", "pointclouds")
    try:
        with h5py.File(path, "r") as file:
            wanted = [*names, *(name for name in optional_names if name in file)]
            for name in wanted:
                # Accept plain arrays only, as links may lead to other files.
                if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(
                    file[name], h5py.Dataset
                ):
                    raise damaged(path, f"it has no array {name}; it has {', '.join(sorted(file)) or 'none'}")
                _check_complete(path, name, file[name])
            check_unpacked_size(path, sum(file[name].nbytes for name in wanted))
            return {name: np.asarray(file[name][()]) for name in wanted}
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise _unreadable(path, error) from error
    # A damaged file may raise OS, runtime, key, type, memory and Unicode errors, so catch them all.
    except Exception as error:
        raise _unreadable(path, error) from error


def read_hdf5_clouds(path: Path, num_classes: int, parts: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Reads the arrays data (shapes, points, 3), label (shapes,) or (shapes, 1) and, if there, normal.

    Args:
        path: the file.
        num_classes: the number of classes; labels must be below it.
        parts: possible names of the array of part ids (shapes, points), if the file must have one.

    Returns:
        The columns `points`, `label` and, if the file has them, `normals` and `point_labels`.

    Raises:
        ValueError: if the file is damaged or the arrays do not fit each other.
    """
    arrays = read_hdf5(path, ("data", "label"), ("normal", *parts))
    check_clouds(path, "data", arrays["data"], 3)
    shape = arrays["data"].shape
    if arrays["label"].shape == (shape[0], 1):
        arrays["label"] = arrays["label"][:, 0]
    check_labels(path, "label", arrays["label"], shape[:1], num_classes)
    columns: dict[str, NDArray[Any]] = {
        "points": arrays["data"].astype(np.float32),
        "label": arrays["label"].astype(np.int64),
    }
    if "normal" in arrays:
        check_clouds(path, "normal", arrays["normal"], 3)
        if arrays["normal"].shape != shape:
            raise damaged(path, f"data has shape {shape}, normal {arrays['normal'].shape}")
        columns["normals"] = arrays["normal"].astype(np.float32)
    if parts:
        name = next((name for name in parts if name in arrays), None)
        if name is None:
            raise damaged(path, f"it has no array {' or '.join(parts)}")
        if arrays[name].shape != shape[:2] or arrays[name].dtype.kind not in "iu":
            raise damaged(path, f"{name} has shape {arrays[name].shape}; expected {shape[:2]} of integers")
        columns["point_labels"] = arrays[name].astype(np.int64)
    return columns


def listed_files(folder: Path, list_name: str, pattern: str, layout: str) -> list[Path]:
    """The files of a split, in the order of the list if there is one, otherwise in the order of their numbers.

    Args:
        folder: the folder of the files.
        list_name: text file with one path per line; only the file name at the end of a path counts.
        pattern: matches the names of all files of the split.
        layout: the end of the message if there are no files.

    Raises:
        ValueError: if there are no files, or if a list names other files than the folder has.
    """
    present = sorted(
        folder.glob(pattern), key=lambda path: ([int(i) for i in re.findall(r"\d+", path.name)], path.name)
    )
    if not (folder / list_name).is_file():
        if not present:
            raise ValueError(f"There is no file {folder / pattern}; {layout}")
        return present
    listed = [folder / line.replace("\\", "/").rsplit("/", 1)[-1] for line in read_lines(folder / list_name)]
    for path in listed:
        existing_file(path, f"{list_name} names it; {layout}")
    if len(set(listed)) < len(listed):
        raise damaged(folder / list_name, "it names a file twice")
    unlisted = [path.name for path in present if path not in listed]
    if unlisted:
        raise damaged(folder / list_name, f"it does not name {unlisted[0]}, which is there")
    return listed


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} cannot be read ({type(error).__name__}: {error}); it is damaged, truncated or no HDF5 file. "
        "Copy it again."
    )


def _check_complete(path: Path, name: str, dataset: Any) -> None:
    """Checks that the whole array is stored in the file: HDF5 silently fills missing data with zeros."""
    if dataset.dtype.kind not in "fiu":
        raise damaged(path, f"{name} has type {dataset.dtype}; expected numbers")
    if dataset.is_virtual or dataset.external:
        raise damaged(path, f"{name} is stored in other files")
    if dataset.chunks:
        num_chunks = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks))
        complete = dataset.id.get_num_chunks() == num_chunks
    else:
        complete = dataset.id.get_storage_size() >= dataset.nbytes
    if not complete:
        raise damaged(path, f"it holds only a part of {name}, which has shape {dataset.shape}")
