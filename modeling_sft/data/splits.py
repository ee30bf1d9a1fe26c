"""Stratified splits that depend on a seed and on the labels only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, both excluded; got {fraction!r}.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1; got {seed!r}.")
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


def train_validation_split(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Splits a `datasets.Dataset` with a `label` column into training and validation rows, stratified by label.

    Args:
        dataset: rows with an integer column `label`.
        fraction: share of the validation rows.
        seed: an integer from 0 to 2**32 - 1; the split is a pure function of it and of the labels.

    Returns:
        (train, validation), both with their rows in the original order; see `stratified_indices` for small classes.

    Raises:
        ValueError: if there is no column `label`, or as `stratified_indices`.
    """
    if "label" not in dataset.column_names:
        raise ValueError(f"dataset has no column 'label' to stratify by; its columns are {dataset.column_names}.")
    labels: Any = dataset.with_format("numpy")["label"][:]
    train, validation = stratified_indices(labels, fraction, seed)
    return dataset.select(train), dataset.select(validation)
