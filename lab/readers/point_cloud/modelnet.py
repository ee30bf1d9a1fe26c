"""ModelNet10 and ModelNet40 (Wu et al., CVPR 2015)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from modeling_sft.data.files import damaged, dataset_folder, existing_file
from modeling_sft.data.point_cloud.rows import point_cloud_rows

from ..contents import check_class_names, check_labels, read_archive
from .files import check_clouds

if TYPE_CHECKING:
    from datasets import Dataset

VOX_LAYOUT = """expected layout, made from the voxel grids of https://modelnet.cs.princeton.edu:
  DATA_DIR/modelnet10_vox/train_points.npz
  DATA_DIR/modelnet10_vox/test_points.npz
each with points (shapes, points, 3), normals_est (shapes, points, 3) int8 in 127ths, label (shapes,) and
class_names."""


def read_modelnet10_vox(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """ModelNet10 from 30 x 30 x 30 voxel grids, official split (3980 / 907 clouds), 1024 points, estimated normals.

    Detail finer than a voxel is lost, so results here do not compare with results on the meshes.
    """
    folder = dataset_folder("modelnet10_vox", data_dir, VOX_LAYOUT)
    splits, names = {}, {}
    for split in ("train", "test"):
        path = existing_file(folder / f"{split}_points.npz", VOX_LAYOUT)
        archive = read_archive(path, ("points", "normals_est", "label", "class_names"))
        check_clouds(path, "points", archive["points"], 3)
        check_clouds(path, "normals_est", archive["normals_est"], 3, kinds="fi")
        if archive["points"].shape != archive["normals_est"].shape:
            raise damaged(path, "points and normals_est differ in shape")
        names[split] = check_class_names(path, archive["class_names"])
        check_labels(path, "label", archive["label"], archive["points"].shape[:1], len(names[split]))
        splits[split] = {
            "points": archive["points"].astype(np.float32),
            "normals": archive["normals_est"].astype(np.float32) / 127,
            "label": archive["label"],
        }
    if names["train"] != names["test"]:
        raise ValueError(f"class_names of train_points.npz and test_points.npz in {folder} differ.")
    return {split: point_cloud_rows(columns, names[split]) for split, columns in splits.items()}
