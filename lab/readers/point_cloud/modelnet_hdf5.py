"""ModelNet40 as PointNet's authors sampled it (Qi et al., CVPR 2017): 2048 points from each mesh, in HDF5 files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from modeling_sft.data.files import damaged, dataset_folder, existing_file
from modeling_sft.data.point_cloud.rows import point_cloud_rows

from .files import read_class_names, warn_if_incomplete
from .hdf5 import listed_files, read_hdf5_clouds
from .modelnet_names import MODELNET40_CLASSES

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, as in modelnet40_ply_hdf5_2048.zip of https://github.com/charlesq34/pointnet:
  DATA_DIR/modelnet40_ply_hdf5_2048/shape_names.txt
  DATA_DIR/modelnet40_ply_hdf5_2048/train_files.txt, test_files.txt (may be absent)
  DATA_DIR/modelnet40_ply_hdf5_2048/ply_data_train0.h5 ... ply_data_train4.h5, ply_data_test0.h5, ply_data_test1.h5
each .h5 with data (shapes, points, 3), label (shapes, 1) and, optionally, normal (shapes, points, 3)."""

OFFICIAL_COUNTS = {"train": 9840, "test": 2468}


def read_modelnet40_hdf5(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """2048 points from each of 9840 / 2468 shapes, with normals if the files have them."""
    name = "modelnet40_ply_hdf5_2048"
    folder = dataset_folder(name, data_dir, LAYOUT)
    class_names = read_class_names(existing_file(folder / "shape_names.txt", LAYOUT), MODELNET40_CLASSES)
    splits = {
        split: {
            path: read_hdf5_clouds(path, len(class_names))
            for path in listed_files(folder, f"{split}_files.txt", f"ply_data_{split}*.h5", LAYOUT)
        }
        for split in ("train", "test")
    }
    lacking = [path for files in splits.values() for path, file in files.items() if "normals" not in file]
    if 0 < len(lacking) < sum(len(files) for files in splits.values()):
        raise damaged(lacking[0], "it has no array normal, which others have")
    columns = ("points", "label") if lacking else ("points", "normals", "label")
    rows = {
        split: point_cloud_rows(
            {column: [row for file in files.values() for row in file[column]] for column in columns}, class_names
        )
        for split, files in splits.items()
    }
    warn_if_incomplete(name, rows, OFFICIAL_COUNTS)
    return rows
