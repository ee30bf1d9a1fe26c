"""SHREC 2011 non-rigid shapes in MeshCNN's split."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from modeling_sft.data.files import dataset_folder, existing_file
from modeling_sft.data.point_cloud.rows import point_cloud_rows

from ..contents import check_class_names, check_labels, read_archive
from .files import check_clouds

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, made from the shapes of https://github.com/ranahanocka/MeshCNN:
  DATA_DIR/shrec16/train.npz
  DATA_DIR/shrec16/test.npz
each with points (shapes, points, 6) = x y z nx ny nz, label (shapes,) and class_names (30,)."""


def read_shrec16(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """16 + 4 shapes per class (480 / 120 shapes, 30 classes), 1024 points and normals each."""
    folder = dataset_folder("shrec16", data_dir, LAYOUT)
    archives = {}
    for split in ("train", "test"):
        path = existing_file(folder / f"{split}.npz", LAYOUT)
        archive = read_archive(path, ("points", "label", "class_names"))
        check_clouds(path, "points", archive["points"], 6)
        class_names = check_class_names(path, archive["class_names"])
        check_labels(path, "label", archive["label"], archive["points"].shape[:1], len(class_names))
        archives[split] = archive
    if not np.array_equal(archives["train"]["class_names"], archives["test"]["class_names"]):
        raise ValueError(f"class_names of train.npz and test.npz in {folder} differ.")
    return {
        split: point_cloud_rows(
            {
                "points": archive["points"][:, :, :3].astype(np.float32),
                "normals": archive["points"][:, :, 3:].astype(np.float32),
                "label": archive["label"],
            },
            class_names,
        )
        for split, archive in archives.items()
    }
