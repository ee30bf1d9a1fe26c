"""Splits by folds for cross-validation, or by a share of the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hub.optional import import_optional
from ...hub.values import require_integer
from ..splits import stratified_indices


def fold_indices(
    labels: ArrayLike,
    fold: int,
    num_folds: int,
    validation: str | float | None,
    seed: int,
    test_fraction: float | None = None,
) -> dict[str, NDArray[np.int64]]:
    """The row numbers of each split in ascending order.

    Args:
        labels: (n,) class ids, by which all splits are stratified, or (n, T) targets, of which they know nothing.
        fold: the test split, from 0 to `num_folds` - 1; the others are the training and validation split.
        num_folds: the number of folds; at least 2, or 3 with "next_fold".
        validation: "next_fold" for the fold after the test fold (the first after the last), a share between 0 and 1 of
            the rows that are not for the test, or None for no validation split.
        seed: the splits are a function of the seed and the labels.
        test_fraction: the share of the test split, in place of a fold.

    Raises:
        ValueError: for an option out of range.
    """
    targets = np.asarray(labels)
    classes = targets if targets.ndim == 1 else np.zeros(len(targets), dtype=np.int64)
    if test_fraction is not None:
        if validation == "next_fold":
            raise ValueError("validation must be a fraction or None where test_fraction takes the place of folds.")
        others, test = stratified_indices(classes, test_fraction, seed)
    else:
        folds = stratified_folds(classes, num_folds, seed)
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < num_folds:
            raise ValueError(f"fold must be an integer from 0 to num_folds - 1 = {num_folds - 1}; got {fold!r}.")
        test, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
    if validation is None:
        return {"train": others, "test": test}
    if validation == "next_fold":
        if num_folds < 3:
            raise ValueError('num_folds must be at least 3 for validation "next_fold", or none is left for training.')
        held_out = folds[others] == (fold + 1) % num_folds
        return {"train": others[~held_out], "validation": others[held_out], "test": test}
    if isinstance(validation, bool) or not isinstance(validation, float) or not 0 < validation < 1:
        raise ValueError(f'validation must be "next_fold", a fraction between 0 and 1 or None; got {validation!r}.')
    larger, smaller = stratified_indices(classes[others], validation, seed)
    return {"train": others[larger], "validation": others[smaller], "test": test}


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
