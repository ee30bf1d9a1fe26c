"""ModelNet40 as PointNet++'s authors sampled it (Qi et al., NeurIPS 2017): 10,000 points and normals, as text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_sft.data.files import damaged, dataset_folder, existing_file
from modeling_sft.data.point_cloud.rows import CloudFile, point_cloud_features, rows_of_files

from .files import read_class_names, read_lines, read_table, warn_if_incomplete
from .modelnet_names import MODELNET10_CLASSES, MODELNET40_CLASSES

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, as in modelnet40_normal_resampled.zip of https://github.com/charlesq34/pointnet2:
  DATA_DIR/modelnet40_normal_resampled/modelnet40_shape_names.txt, modelnet40_train.txt, modelnet40_test.txt
  DATA_DIR/modelnet40_normal_resampled/modelnet10_shape_names.txt, modelnet10_train.txt, modelnet10_test.txt
  DATA_DIR/modelnet40_normal_resampled/<class>/<class>_<number>.txt: 10,000 lines of x,y,z,nx,ny,nz."""

NUM_POINTS = 10_000
CLASSES = {10: MODELNET10_CLASSES, 40: MODELNET40_CLASSES}
OFFICIAL_COUNTS = {10: {"train": 3991, "test": 908}, 40: {"train": 9843, "test": 2468}}


def read_modelnet40_resampled(data_dir: str | os.PathLike[str] | None, num_classes: int = 40) -> dict[str, Dataset]:
    """10,000 points, uniform by area, with normals, of each of 9843 / 2468 shapes (3991 / 908 with 10 classes).

    Raises:
        ValueError: for damaged files, or if `num_classes` is neither 40 nor 10.
    """
    if num_classes not in CLASSES:
        raise ValueError(f"num_classes of modelnet40_normal_resampled must be 40 or 10; got {num_classes!r}.")
    folder = dataset_folder("modelnet40_normal_resampled", data_dir, LAYOUT)
    prefix = f"modelnet{num_classes}"
    names_path = existing_file(folder / f"{prefix}_shape_names.txt", LAYOUT)
    class_names = read_class_names(names_path, CLASSES[num_classes])
    files: dict[str, list[CloudFile]] = {}
    split_of: dict[Path, str] = {}
    for split in ("train", "test"):
        list_path = existing_file(folder / f"{prefix}_{split}.txt", LAYOUT)
        files[split] = [_listed_cloud(folder, list_path, line, class_names) for line in read_lines(list_path)]
        for file in files[split]:
            if file.path in split_of:
                raise damaged(list_path, f"{file.path.stem} is listed twice (also for {split_of[file.path]})")
            split_of[file.path] = split
    counts = {split: len(listed) for split, listed in files.items()}
    warn_if_incomplete(f"modelnet40_normal_resampled ({num_classes} classes)", counts, OFFICIAL_COUNTS[num_classes])
    features = point_cloud_features({"points": 3, "normals": 3}, class_names)
    return {split: rows_of_files(read_resampled_cloud, listed, split, features) for split, listed in files.items()}


def read_resampled_cloud(file: CloudFile) -> dict[str, Any]:
    """Reads the points and normals of one shape.

    Raises:
        ValueError: if the file does not hold 10,000 points.
    """
    table = read_table(file.path, 6, delimiter=",")
    if len(table) != NUM_POINTS:
        raise damaged(file.path, f"it has {len(table)} lines; expected {NUM_POINTS}")
    return {"points": table[:, :3], "normals": table[:, 3:]}


def _listed_cloud(folder: Path, list_path: Path, line: str, class_names: list[str]) -> CloudFile:
    class_name = line.rpartition("_")[0]
    if class_name not in class_names:
        raise damaged(list_path, f"{line!r} is no <class>_<number>")
    path = existing_file(folder / class_name / f"{line}.txt", f"{list_path.name} names it; {LAYOUT}")
    return CloudFile(path, class_names.index(class_name))
