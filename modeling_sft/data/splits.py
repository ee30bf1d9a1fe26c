"""Splits that depend on a seed and on the labels or the number of rows only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..hub.optional import import_optional
from ..hub.values import require_fraction, require_integer

if TYPE_CHECKING:
    from datasets import Dataset


def stratified_indices(labels: ArrayLike, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits the rows of a data set so that every class keeps its share.

    The smaller part has ceil(fraction * n) rows, shared among the classes by largest remainder. Every class keeps at
    least one row in the larger part, so a class with a single row is in that part alone.

    Args:
        labels: (n,) class ids.
        fraction: share of the smaller part, between 0 and 1.
        seed: an integer from 0 to 2**32 - 1.

    Returns:
        Increasing row numbers of the larger and of the smaller part.

    Raises:
        ValueError: if `fraction` or `seed` is out of range, or if no class has two rows.
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise ValueError(f"labels must be one integer per row to stratify by; got shape {classes.shape}.")
    require_fraction("fraction", fraction)
    require_integer("seed", seed, 0, 2**32 - 1)
    inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)[1:]
    available = counts - 1
    if available.sum() == 0:
        raise ValueError("labels has no class with two rows, so a stratified split would leave one part empty.")

    quotas = counts * fraction
    taken = np.minimum(np.floor(quotas).astype(np.int64), available)
    num_missing = min(math.ceil(len(classes) * fraction), int(available.sum())) - int(taken.sum())
    while num_missing > 0:
        remainders = np.where(taken < available, quotas - taken, -np.inf)
        largest = np.argsort(-remainders, kind="stable")[: min(num_missing, int((taken < available).sum()))]
        taken[largest] += 1
        num_missing -= len(largest)

    # RandomState and not Generator: only the former's numbers are the same in every version of NumPy.
    rng = np.random.RandomState(seed)
    smaller = np.zeros(len(classes), dtype=bool)
    for index, count in enumerate(taken):
        smaller[rng.permutation(np.flatnonzero(inverse == index))[:count]] = True
    return np.flatnonzero(~smaller), np.flatnonzero(smaller)


def random_indices(num_rows: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits the rows of a data set by a random permutation, for data sets without classes.

    Args:
        num_rows: n, at least 2.
        fraction: share of the smaller part, between 0 and 1.
        seed: an integer from 0 to 2**32 - 1.

    Returns:
        Increasing row numbers of the larger and of the smaller part; the smaller has ceil(fraction * n) rows, and
        leaves at least one to the larger.

    Raises:
        ValueError: if `num_rows`, `fraction` or `seed` is out of range.
    """
    require_fraction("fraction", fraction)
    require_integer("seed", seed, 0, 2**32 - 1)
    if num_rows < 2:
        raise ValueError(f"num_rows must be at least 2, or a split would leave one part empty; got {num_rows}.")
    order = np.random.RandomState(seed).permutation(num_rows)
    count = min(math.ceil(num_rows * fraction), num_rows - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def train_validation_split(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Splits a `datasets.Dataset` into training and validation rows.

    Stratified by the column `label` (of graphs: `y`) if it holds one class per row. If it holds floats (targets) or
    lists (several labels), or does not exist, by a random permutation instead, which does not look at the labels.

    Args:
        dataset: rows, with or without such a column.
        fraction: share of the validation rows.
        seed: an integer from 0 to 2**32 - 1; the split is a pure function of it and of the labels if stratified, of it
            and the number of rows otherwise.

    Returns:
        (train, validation), both with their rows in the original order; see `stratified_indices` for small classes.

    Raises:
        ValueError: as `stratified_indices` and `random_indices`.
    """
    classes = [name for name in ("label", "y") if _holds_classes(dataset, name)]
    if classes:
        labels: Any = dataset.with_format("numpy")[classes[0]][:]
        train, validation = stratified_indices(labels, fraction, seed)
    else:
        train, validation = random_indices(len(dataset), fraction, seed)
    return dataset.select(train), dataset.select(validation)


def _holds_classes(dataset: Dataset, column: str) -> bool:
    """Whether a column is a single value per row that is no float; by its type, since targets may be whole numbers."""
    datasets = import_optional("datasets", "sequences")
    feature: Any = dataset.features.get(column)
    return isinstance(feature, (datasets.ClassLabel, datasets.Value)) and not feature.dtype.startswith("float")
