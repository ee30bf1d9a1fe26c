"""ScanObjectNN (Uy et al., ICCV 2019): objects cut from scans of rooms."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from modeling_sft.data.files import dataset_folder, existing_file
from modeling_sft.data.point_cloud.rows import point_cloud_rows

from .files import warn_if_incomplete
from .hdf5 import read_hdf5_clouds

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, as in h5_files.zip from https://hkust-vgd.github.io/scanobjectnn:
  DATA_DIR/scanobjectnn/main_split_nobg/training_objectdataset.h5, test_objectdataset.h5 (obj_only)
  DATA_DIR/scanobjectnn/main_split/training_objectdataset.h5, test_objectdataset.h5 (obj_bg)
  DATA_DIR/scanobjectnn/main_split/training_objectdataset_augmentedrot_scale75.h5, test_... (pb_t50_rs)
each with data (shapes, points, 3) and label (shapes,); the folder may also be named h5_files."""

CLASSES = (
    "bag",
    "bin",
    "box",
    "cabinet",
    "chair",
    "desk",
    "display",
    "door",
    "shelf",
    "table",
    "bed",
    "pillow",
    "sink",
    "sofa",
    "toilet",
)

VARIANTS = {
    "obj_only": ("main_split_nobg", "objectdataset.h5"),
    "obj_bg": ("main_split", "objectdataset.h5"),
    "pb_t50_rs": ("main_split", "objectdataset_augmentedrot_scale75.h5"),
}

SMALL_COUNTS = {"train": 2309, "test": 581}
OFFICIAL_COUNTS = {
    "obj_only": SMALL_COUNTS,
    "obj_bg": SMALL_COUNTS,
    "pb_t50_rs": {"train": 11416, "test": 2882},
}


def read_scanobjectnn(data_dir: str | os.PathLike[str] | None, variant: str = "pb_t50_rs") -> dict[str, Dataset]:
    """2048 points of each object, 15 classes, no normals, the main split.

    Args:
        data_dir: holds the folder.
        variant: `"obj_only"` (objects alone), `"obj_bg"` (with their surroundings) or `"pb_t50_rs"` (each object five
            times, with its box shifted by up to half, rotated and scaled). `"pb_t50_rs"` is the hardest variant, and
            usually the reported one.

    Raises:
        ValueError: for damaged files and unknown variants.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant of scanobjectnn must be one of {', '.join(VARIANTS)}; got {variant!r}.")
    folder = dataset_folder("scanobjectnn", data_dir, LAYOUT, "h5_files", "ScanObjectNN")
    subfolder, file_name = VARIANTS[variant]
    rows = {}
    for split, prefix in (("train", "training"), ("test", "test")):
        path = existing_file(folder / subfolder / f"{prefix}_{file_name}", LAYOUT)
        columns = read_hdf5_clouds(path, len(CLASSES))
        rows[split] = point_cloud_rows({name: columns[name] for name in ("points", "label")}, list(CLASSES))
    warn_if_incomplete(f"scanobjectnn ({variant})", rows, OFFICIAL_COUNTS[variant])
    return rows
