"""The user's own clouds and meshes, sorted into one folder per class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import logging

from ...hub.values import require_fraction, require_integer
from ...point_cloud.files import POINT_CLOUD_SUFFIXES
from ..files import SPLITS
from ..splits import stratified_indices
from .rows import CloudFile, point_cloud_features, read_cloud, rows_of_files

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

LAYOUT = """expected layout, one of:
  DATA_DIR/<class>/<file>
  DATA_DIR/{train,test}/<class>/<file>, and DATA_DIR/validation/<class>/<file> if there is one
with meshes (.off, .obj, .ply, .stl) or clouds (.ply, .xyz, .txt, .csv, .npy, .npz, .h5)."""


def read_folder(
    data_dir: str | os.PathLike[str] | None, num_mesh_points: int = 2048, test_fraction: float = 0.2
) -> dict[str, Dataset]:
    """Reads the clouds and meshes of a folder; the names of its class folders, sorted, are the class names.

    Args:
        data_dir: the folder itself.
        num_mesh_points: points drawn from each mesh, uniformly by area.
        test_fraction: share of the test split where there are no split folders; stratified by class, and always the
            same for the same files.

    Returns:
        The splits; `normals` only if every file has them or is a mesh.

    Raises:
        ValueError: for an absent folder, one without class folders, a class without a readable file, splits with
            different classes and files that cannot be read.
    """
    require_integer("num_mesh_points", num_mesh_points, 1)
    require_fraction("test_fraction", test_fraction)
    if data_dir is None:
        raise ValueError(f"data_dir is needed for folder; {LAYOUT}")
    folder = Path(data_dir)
    if not folder.is_dir():
        raise ValueError(f"data_dir {str(folder)!r} is no folder; {LAYOUT}")

    names = _folders_in(folder)
    if set(names) & {"train", "test"} and set(names) <= set(SPLITS):
        absent = [split for split in ("train", "test") if split not in names]
        if absent:
            raise ValueError(f"{folder} has no folder {absent[0]} beside {', '.join(names)}; {LAYOUT}")
        class_names, files = _files_of_splits(folder, [split for split in SPLITS if split in names])
    else:
        if {"train", "test"} <= set(names):
            other = next(name for name in names if name not in SPLITS)
            raise ValueError(f"{folder} has train and test beside {other}, which is no split; {LAYOUT}")
        class_names, all_files = _files_of_classes(folder)
        files = _split(all_files, test_fraction)

    features = point_cloud_features({"points": 3, "normals": 3}, class_names)
    rows = {
        split: rows_of_files(read_cloud, listed, split, features, num_mesh_points=int(num_mesh_points))
        for split, listed in files.items()
    }
    num_files = sum(len(dataset) for dataset in rows.values())
    num_without = sum(dataset.data.column("normals").null_count for dataset in rows.values())
    if num_without == 0:
        return rows
    if num_without < num_files:
        logger.warning(
            f"{num_without} of {num_files} files in {folder} have no normals: those of the others are left out."
        )
    return {split: dataset.remove_columns("normals") for split, dataset in rows.items()}


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _files_of_classes(folder: Path) -> tuple[list[str], list[CloudFile]]:
    """The class names, and the files in the order of their classes and names."""
    class_names = _folders_in(folder)
    if not class_names:
        raise ValueError(f"{folder} has no class folders; {LAYOUT}")
    files, ignored = [], Counter[str]()
    for label, class_name in enumerate(class_names):
        paths = sorted(
            path for path in (folder / class_name).iterdir() if path.is_file() and not path.name.startswith(".")
        )
        readable = [path for path in paths if path.suffix.lower() in POINT_CLOUD_SUFFIXES]
        if not readable:
            raise ValueError(f"Class folder {folder / class_name} has no readable file; {LAYOUT}")
        ignored.update(path.suffix or path.name for path in paths if path not in readable)
        files += [CloudFile(path, label) for path in readable]
    if ignored:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(ignored.items()))
        logger.warning(f"Files of other kinds in {folder} are left out: {kinds}.")
    return class_names, files


def _files_of_splits(folder: Path, splits: list[str]) -> tuple[list[str], dict[str, list[CloudFile]]]:
    classes, files = {}, {}
    for split in splits:
        classes[split], files[split] = _files_of_classes(folder / split)
        differing = sorted(set(classes[split]) ^ set(classes[splits[0]]))
        if differing:
            raise ValueError(f"Splits {splits[0]} and {split} of {folder} differ in class {differing[0]}; {LAYOUT}")
    return classes[splits[0]], files


def _split(files: list[CloudFile], test_fraction: float) -> dict[str, list[CloudFile]]:
    labels = [file.label for file in files]
    if len(set(labels)) == len(labels):
        raise ValueError(
            "Each class folder has a single file, so that none is left to test: add files or split folders."
        )
    train, test = stratified_indices(labels, test_fraction, seed=0)
    return {"train": [files[index] for index in train], "test": [files[index] for index in test]}
