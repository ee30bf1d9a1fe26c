"""ModelNet10 and ModelNet40 (Wu et al., CVPR 2015) from the meshes of the release."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modeling_sft.data.files import dataset_folder
from modeling_sft.data.point_cloud.rows import CloudFile, point_cloud_features, read_cloud, rows_of_files
from modeling_sft.hub.values import require_integer

from .files import warn_if_incomplete
from .modelnet_names import MODELNET10_CLASSES, MODELNET40_CLASSES

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, as in {name}.zip from https://modelnet.cs.princeton.edu:
  DATA_DIR/{name}/<class>/train/*.off
  DATA_DIR/{name}/<class>/test/*.off"""


def read_modelnet10(data_dir: str | os.PathLike[str] | None, num_mesh_points: int = 2048) -> dict[str, Dataset]:
    """The 10 classes (3991 / 908 meshes) as points drawn uniformly by area, with the normals of their faces."""
    counts = {"train": 3991, "test": 908}
    return _read_meshes("ModelNet10", MODELNET10_CLASSES, counts, data_dir, num_mesh_points)


def read_modelnet40(data_dir: str | os.PathLike[str] | None, num_mesh_points: int = 2048) -> dict[str, Dataset]:
    """The 40 classes (9843 / 2468 meshes) as points drawn uniformly by area, with the normals of their faces."""
    counts = {"train": 9843, "test": 2468}
    return _read_meshes("ModelNet40", MODELNET40_CLASSES, counts, data_dir, num_mesh_points)


def _read_meshes(
    name: str,
    class_names: tuple[str, ...],
    official_counts: dict[str, int],
    data_dir: str | os.PathLike[str] | None,
    num_mesh_points: int,
) -> dict[str, Dataset]:
    require_integer("num_mesh_points", num_mesh_points, 1)
    layout = LAYOUT.format(name=name)
    folder = dataset_folder(name, data_dir, layout, name.lower())
    files = {
        split: [
            CloudFile(path, label)
            for label, class_name in enumerate(class_names)
            for path in _meshes(folder / class_name / split, layout)
        ]
        for split in ("train", "test")
    }
    warn_if_incomplete(name, {split: len(paths) for split, paths in files.items()}, official_counts)
    features = point_cloud_features({"points": 3, "normals": 3}, list(class_names))
    return {
        split: rows_of_files(read_cloud, paths, split, features, num_mesh_points=int(num_mesh_points))
        for split, paths in files.items()
    }


def _meshes(folder: Path, layout: str) -> list[Path]:
    # Skip hidden files: macOS leaves some behind, such as ._chair_0001.off.
    meshes = sorted(path for path in folder.glob("*.off") if not path.name.startswith("."))
    if not meshes:
        raise ValueError(f"There is no .off file in {folder}; {layout}")
    return meshes
