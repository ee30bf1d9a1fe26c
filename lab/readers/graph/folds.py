"""Folds for cross-validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.values import require_integer


def stratified_folds(labels: ArrayLike, num_folds: int, seed: int) -> NDArray[np.int64]:
    """Deals the rows of a data set out to folds so that every class keeps its share, by scikit-learn's method.

    Args:
        labels: (n,) class ids.
        num_folds: from 2 to the number of rows of the largest class.
        seed: an integer from 0 to 2**32 - 1; the folds are a pure function of it and of the labels.

    Returns:
        (n,) fold of each row. The sizes of two folds, and their numbers of rows of a class, differ by at most one.

    Raises:
        ValueError: if `labels`, `num_folds` or `seed` is out of range.
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise ValueError(f"labels must be one integer per row to stratify by; got shape {classes.shape}.")
    largest = int(np.unique(classes, return_counts=True)[1].max(initial=0))
    require_integer("num_folds", num_folds, 2, largest)
    require_integer("seed", seed, 0, 2**32 - 1)
    splitter = import_optional("sklearn.model_selection", "graphs").StratifiedKFold(
        num_folds, shuffle=True, random_state=seed
    )
    folds = np.empty(len(classes), dtype=np.int64)
    for fold, (_, rows) in enumerate(splitter.split(classes, classes)):
        folds[rows] = fold
    return folds
