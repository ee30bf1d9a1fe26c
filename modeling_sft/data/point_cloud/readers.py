"""Which point-cloud data sets can be read, by name: own files, digits, and what others add."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..registry import ReaderEntry, read_by_name
from .digits import read_digits
from .folder import read_folder

if TYPE_CHECKING:
    from datasets import DatasetDict

READERS: dict[str, ReaderEntry] = {
    "digits": ReaderEntry(
        read_digits, license="CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI Machine Learning Repository)"
    ),
    "folder": ReaderEntry(read_folder, ("num_mesh_points", "test_fraction")),
}


def load_point_cloud_dataset(name: str, data_dir: str | os.PathLike[str] | None = None, **options: Any) -> DatasetDict:
    """Reads a data set.

    Args:
        name: one of `READERS`; docs/point_clouds.md lists them with their layouts.
        data_dir: folder that holds one folder for each data set; for "folder", the folder itself. Not used by "digits"
            and "primitives".
        options: what the reader of this data set accepts, see there.

    Returns:
        DatasetDict with `train` and `test` and, where the source has one, `validation`. Columns: `points` (n, 3)
        float32, `label` (ClassLabel with the names) and, where the source has them, `normals` (n, 3) float32,
        `point_features` (n, F) float32 and `point_labels` (n,). Rows come as NumPy arrays.

    Raises:
        ValueError: for an unknown name or option, for absent files (the message shows the layout and where to get
            them) and for damaged ones.
        ImportError: for files that need an optional library that is not installed.
    """
    return read_by_name(READERS, "point-cloud", "pointclouds", name, data_dir, options)
