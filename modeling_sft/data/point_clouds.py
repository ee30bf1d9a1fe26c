"""Readers of point-cloud benchmarks, all giving the columns points, normals, point_features and label."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .splits import stratified_indices

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_SHREC16_LAYOUT = """expected layout:
  {root}/shrec16/train.npz
  {root}/shrec16/test.npz
each with points (shapes, points, 6) = x y z nx ny nz, label (shapes,) and class_names (30,)."""


def load_point_cloud_dataset(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetDict:
    """Reads a benchmark.

    Args:
        name: "digits", scikit-learn's embedded 8 x 8 digits, needs no files: the inked pixels are the points
            (column, row counted upwards, 0) in pixels, their intensity from 0 to 1 is the only point feature, and the
            test split is a fixed stratified fifth (1437 / 360 images), as scikit-learn defines none.
            "shrec16", SHREC 2011 non-rigid shapes in MeshCNN's split of 16 + 4 shapes per class (480 / 120 shapes, 30
            classes), 1024 points and normals each, read from `data_dir`/shrec16/{train,test}.npz.
        data_dir: folder that holds one folder for each data set; not used by "digits".

    Returns:
        DatasetDict with `train` and `test`; columns `points` (n, 3) float32, `normals` (n, 3) float32 (shrec16),
        `point_features` (n, 1) float32 (digits) and `label` (ClassLabel with the names). Rows come as NumPy arrays.

    Raises:
        ValueError: for an unknown name, for absent files (the message shows the layout) and for damaged ones.
    """
    if name not in _READERS:
        close = difflib.get_close_matches(str(name), _READERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name {name!r} is no known point-cloud data set ({', '.join(_READERS)}).{hint}")
    try:
        from datasets import DatasetDict
    except ImportError as error:
        raise ImportError('Data sets need datasets: pip install "modeling-sft[pointclouds]".') from error
    return DatasetDict(_READERS[name](data_dir))


def point_cloud_rows(columns: Mapping[str, Any], class_names: list[str]) -> Dataset:
    """Builds the `datasets.Dataset` that all readers return.

    Args:
        columns: `label` (rows,) and, one (n, F) float array per row, `points`, `normals` or `point_features`.
        class_names: the names of the labels.

    Returns:
        The rows, read as NumPy arrays; n may differ from row to row.
    """
    from datasets import Array2D, ClassLabel, Dataset, Features

    features: dict[str, Any] = {"label": ClassLabel(names=class_names)}
    for name in columns.keys() - {"label"}:
        # Array2D is read by one copy; nested lists of values take twenty times as long.
        features[name] = Array2D((None, np.shape(columns[name][0])[1]), "float32")
    return Dataset.from_dict(
        {name: list(values) for name, values in columns.items()},
        features=Features({name: features[name] for name in columns}),
    ).with_format("numpy")


def _read_digits(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('The digits need scikit-learn: pip install "modeling-sft[pointclouds]".') from error
    digits = load_digits()
    points, intensities = [], []
    for image in digits.images:
        row, column = np.nonzero(image)
        height = image.shape[0] - 1 - row
        points.append(np.stack([column, height, np.zeros_like(column)], axis=1).astype(np.float32))
        intensities.append((image[row, column] / 16.0).astype(np.float32)[:, None])
    train, test = stratified_indices(digits.target, fraction=0.2, seed=0)
    return {
        split: point_cloud_rows(
            {
                "points": [points[index] for index in indices],
                "point_features": [intensities[index] for index in indices],
                "label": digits.target[indices],
            },
            [str(digit) for digit in digits.target_names],
        )
        for split, indices in (("train", train), ("test", test))
    }


def _read_shrec16(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    if data_dir is None:
        raise ValueError(f"data_dir is needed for shrec16; {_SHREC16_LAYOUT.format(root='data_dir')}")
    archives = {}
    for split in ("train", "test"):
        path = Path(data_dir) / "shrec16" / f"{split}.npz"
        if not path.is_file():
            raise ValueError(
                f"data_dir {str(data_dir)!r} has no file shrec16/{split}.npz; {_SHREC16_LAYOUT.format(root=data_dir)}"
            )
        archives[split] = _read_labeled_archive(path)
    if not np.array_equal(archives["train"]["class_names"], archives["test"]["class_names"]):
        raise ValueError(f"class_names of train.npz and test.npz in {Path(data_dir) / 'shrec16'} differ.")
    return {
        split: point_cloud_rows(
            {
                "points": archive["points"][:, :, :3].astype(np.float32),
                "normals": archive["points"][:, :, 3:].astype(np.float32),
                "label": archive["label"],
            },
            [str(class_name) for class_name in archive["class_names"]],
        )
        for split, archive in archives.items()
    }


def _read_labeled_archive(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            archive = {name: file[name] for name in ("points", "label", "class_names")}
    # Damaged archives raise almost anything: zip, zlib, struct, key, value, memory and end-of-file errors.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); it is damaged, truncated or of another kind. "
            "Copy it again."
        ) from error
    points, label, class_names = archive["points"], archive["label"], archive["class_names"]
    problem = None
    if points.ndim != 3 or points.shape[2] != 6 or points.dtype.kind != "f" or points.size == 0:
        problem = f"points has shape {points.shape} and type {points.dtype}; expected (shapes, points, 6) of floats"
    elif not np.isfinite(points).all():
        problem = "points holds NaN or infinite values"
    elif class_names.ndim != 1 or class_names.dtype.kind != "U" or len(set(class_names.tolist())) < len(class_names):
        problem = "class_names is no list of distinct names"
    elif label.shape != points.shape[:1] or label.dtype.kind not in "iu":
        problem = f"label has shape {label.shape} and type {label.dtype}; expected ({len(points)},) of integers"
    elif label.min() < 0 or label.max() >= len(class_names):
        problem = f"label is not between 0 and {len(class_names) - 1}, the last of class_names"
    if problem is not None:
        raise ValueError(f"{path} is damaged or of another kind: {problem}.")
    return archive


_READERS: dict[str, Callable[[str | os.PathLike[str] | None], dict[str, Any]]] = {
    "digits": _read_digits,
    "shrec16": _read_shrec16,
}
