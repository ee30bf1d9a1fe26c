"""Metrics of graph tasks on a whole split, computed by scikit-learn."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hub.optional import import_optional
from ...nn.checks import IGNORED_LABEL

COMPETITORS = ("raw", "filtered", "filtered_without_loops")


def mean_average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Unweighted mean over the labels of the exact average precision, as OGB and LRGB evaluate.

    Args:
        scores: (n, T) or (n,) finite; any increasing function of the probabilities.
        labels: the same shape, 0 or 1, NaN or -100 where missing. A label without a positive or without a negative row
            is left out.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: for shapes or values that do not fit, or if all labels are left out.
    """
    return _mean_over_labels("average_precision_score", scores, labels)


def mean_roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Unweighted mean over the labels of the area under the ROC curve; see `mean_average_precision`."""
    return _mean_over_labels("roc_auc_score", scores, labels)


def mean_absolute_error(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Mean over the targets of their mean absolute errors.

    Args:
        predictions: (n, T) or (n,) finite.
        targets: the same shape, NaN where missing; a target without a value is left out.

    Raises:
        ValueError: for shapes or values that do not fit, or if all targets are left out.
    """
    return _mean_over_targets(lambda error: float(np.abs(error).mean()), predictions, targets)


def root_mean_squared_error(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Mean over the targets of the roots of their mean squared errors; see `mean_absolute_error`."""
    return _mean_over_targets(lambda error: float(np.sqrt(np.square(error).mean())), predictions, targets)


def macro_f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Unweighted mean of the F1 of the classes that occur among labels or predictions.

    Args:
        predictions: (n,) class ids, or (n, C) logits.
        labels: (n,) class ids, -100 for those that do not count.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: for shapes or values that do not fit, or no label that counts.
    """
    predicted, expected = _classes(predictions, labels)
    metrics = import_optional("sklearn.metrics", "graphs")
    return float(metrics.f1_score(expected, predicted, average="macro", zero_division=0))


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of the labels that are predicted; see `macro_f1`."""
    predicted, expected = _classes(predictions, labels)
    return float(import_optional("sklearn.metrics", "graphs").accuracy_score(expected, predicted))


def link_ranks(scores: ArrayLike, links: ArrayLike, competitors: str = "filtered") -> NDArray[np.float64]:
    """Rank of the target of each true link among the nodes of one graph, by their scores with the link's source.

    LRGB (arXiv 2206.08164) has three definitions of which nodes compete for PCQM-Contact. They differ much: a result
    should name its own.

    Args:
        scores: (n, n) finite, of the link from each node (row) to each node (column).
        links: (2, P) the true links; each is ranked as it is given, in one direction.
        competitors: "raw", all other nodes, as first published; "filtered", those that are no true target of the same
            source; or "filtered_without_loops", without the source itself as well.

    Returns:
        (P,) from 1 to n. Nodes of equal score share their mean rank, where LRGB leaves the order to the sorting.

    Raises:
        ValueError: for shapes or values that do not fit.
    """
    if competitors not in COMPETITORS:
        raise ValueError(f"competitors must be one of {', '.join(COMPETITORS)}; got {competitors!r}.")
    table, pairs = _finite("scores", scores), np.asarray(links)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"scores must have shape (n, n); got {table.shape}.")
    if pairs.size == 0:
        return np.empty(0)
    if pairs.ndim != 2 or len(pairs) != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(f"links must have shape (2, P) of integers; got {pairs.shape} of {pairs.dtype}.")
    if pairs.min() < 0 or pairs.max() >= len(table):
        raise ValueError(f"links must be between 0 and {len(table) - 1}, the last node.")
    sources, targets = pairs
    if competitors == "raw":
        competes = np.ones((len(sources), len(table)), dtype=bool)
        competes[np.arange(len(sources)), targets] = False
    else:
        allowed = np.ones(table.shape, dtype=bool)
        allowed[sources, targets] = False
        if competitors == "filtered_without_loops":
            np.fill_diagonal(allowed, False)
        competes = allowed[sources]
    own = table[sources, targets][:, None]
    better = (competes & (table[sources] > own)).sum(axis=1)
    equal = (competes & (table[sources] == own)).sum(axis=1)
    return 1 + better + equal / 2


def mean_reciprocal_rank(
    scores: Sequence[ArrayLike], links: Sequence[ArrayLike], competitors: str = "filtered"
) -> float:
    """Mean over the graphs of the means of 1 / rank over a graph's links, as LRGB evaluates PCQM-Contact.

    Graphs without true links are left out.

    Args:
        scores: for each graph (n, n); see `link_ranks`.
        links: for each graph (2, P).
        competitors: see `link_ranks`.

    Returns:
        Above 0 and up to 1.

    Raises:
        ValueError: as `link_ranks`, for another number of graphs, or if none has a link.
    """
    if len(scores) != len(links):
        raise ValueError(f"scores and links must be of the same graphs; got {len(scores)} and {len(links)}.")
    ranks = [link_ranks(one, pairs, competitors) for one, pairs in zip(scores, links)]
    means = [(1 / values).mean() for values in ranks if len(values)]
    if not means:
        raise ValueError("links has no graph with a true link: the metric is not defined.")
    return float(np.mean(means))


def _mean_over_labels(score: str, scores: ArrayLike, labels: ArrayLike) -> float:
    guessed, expected = _columns("scores", scores, "labels", labels)
    expected = np.where(expected == IGNORED_LABEL, np.nan, expected)
    if not np.isin(expected[~np.isnan(expected)], (0, 1)).all():
        raise ValueError("labels must be 0, 1, or NaN or -100 (missing).")
    function: Callable[..., Any] = getattr(import_optional("sklearn.metrics", "graphs"), score)
    values = []
    for truth, guess in zip(expected.T, guessed.T):
        known = ~np.isnan(truth)
        if (truth == 1).any() and (truth == 0).any():
            values.append(function(truth[known], guess[known]))
    if not values:
        raise ValueError("labels has no label with both a positive and a negative row: the metric is not defined.")
    return float(np.mean(values))


def _mean_over_targets(
    reduce: Callable[[NDArray[np.float64]], float], predictions: ArrayLike, targets: ArrayLike
) -> float:
    guessed, expected = _columns("predictions", predictions, "targets", targets)
    if np.isinf(expected).any():
        raise ValueError("targets must be finite, or NaN where missing.")
    errors = [(guess - truth)[~np.isnan(truth)] for truth, guess in zip(expected.T, guessed.T)]
    values = [reduce(error) for error in errors if len(error)]
    if not values:
        raise ValueError("targets has no value that is not NaN.")
    return float(np.mean(values))


def _columns(
    name: str, guesses: ArrayLike, truth_name: str, truths: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    guessed, expected = _finite(name, guesses), np.asarray(truths, dtype=np.float64)
    if guessed.shape != expected.shape or guessed.ndim not in (1, 2) or guessed.size == 0:
        raise ValueError(
            f"{name} and {truth_name} must both have shape (n, T) or (n,), not empty; got {guessed.shape} and "
            f"{expected.shape}."
        )
    return guessed.reshape(len(guessed), -1), expected.reshape(len(expected), -1)


def _finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; the model has diverged or its input was not finite.")
    return array


def _classes(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    predicted, expected = np.asarray(predictions), np.asarray(labels)
    if expected.ndim != 1 or expected.dtype.kind not in "iu":
        raise ValueError(f"labels must have shape (n,) of integers; got {expected.shape} of {expected.dtype}.")
    if predicted.ndim == 2 and len(predicted) == len(expected):
        predicted = _finite("predictions", predicted).argmax(axis=1)
    if predicted.shape != expected.shape or predicted.dtype.kind not in "iu":
        raise ValueError(
            f"predictions must have shape ({len(expected)},) of integers or ({len(expected)}, C); got "
            f"{predicted.shape} of {predicted.dtype}."
        )
    counted = expected != IGNORED_LABEL
    if not counted.any():
        raise ValueError(f"labels has none that counts: it is empty or all {IGNORED_LABEL}.")
    return predicted[counted], expected[counted]
