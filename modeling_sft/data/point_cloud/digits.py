"""The 8 x 8 digits inside scikit-learn as point clouds, which need no files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ...hub.optional import import_optional
from ..splits import stratified_indices
from .rows import point_cloud_rows

if TYPE_CHECKING:
    from datasets import Dataset


def read_digits(data_dir: str | os.PathLike[str] | None = None) -> dict[str, Dataset]:
    """Inked pixels are the points (column, row counted upwards, 0); their intensity from 0 to 1 is the only feature.

    The test split is a fixed stratified fifth (1437 / 360 images), because scikit-learn does not define one.
    """
    digits = import_optional("sklearn.datasets", "pointclouds").load_digits()
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
