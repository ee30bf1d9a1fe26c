"""Calibration: whether a model that says 0.9 is right in nine cases of ten."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from modeling_sft.hub.optional import import_optional

from .classification import Answers

NUM_BINS = 15


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, num_bins: int = NUM_BINS) -> list[dict[str, Any]]:
    """Group predictions by confidence, into bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2).

    Args:
        confidence: (n,) from 0 to 1.
        correct: (n,) 0 or 1.
        num_bins: M; bin m holds confidences in ((m - 1) / M, m / M], the first one 0 as well.

    Returns:
        For each bin "lower", "upper", "count", and the means "confidence" and "accuracy"; None in an empty bin.

    Raises:
        ValueError: for empty input, shapes that differ, or confidences outside 0 to 1.
    """
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if given.ndim != 1 or len(given) == 0 or right.shape != given.shape:
        raise ValueError(
            f"confidence and correct must both have shape (n,) with n >= 1; got {given.shape} and {right.shape}."
        )
    if not (0 <= given.min() and given.max() <= 1):
        raise ValueError(f"confidence must be from 0 to 1; got {given.min()} to {given.max()}.")
    edges = np.arange(num_bins + 1) / num_bins
    numbers = np.searchsorted(edges[1:-1], given, side="left")
    bins = []
    for number in range(num_bins):
        inside = numbers == number
        count = int(inside.sum())
        bins.append(
            {
                "lower": float(edges[number]),
                "upper": float(edges[number + 1]),
                "count": count,
                "confidence": float(given[inside].mean()) if count else None,
                "accuracy": float(right[inside].mean()) if count else None,
            }
        )
    return bins


def expected_calibration_error(bins: list[dict[str, Any]]) -> float:
    """Mean difference of accuracy and confidence over all predictions, from [`reliability_bins`] (equation 3)."""
    total = sum(each["count"] for each in bins)
    return sum(each["count"] * abs(each["accuracy"] - each["confidence"]) for each in bins if each["count"]) / total


def measure_calibration(answers: Answers) -> dict[str, Any]:
    """Measure how far probabilities can be believed.

    With one class per row, the confidence is the probability of the predicted class, and the accuracy tells whether
    that class is right. With several labels, every known label is a prediction: the confidence is the probability that
    the row has the label, and the accuracy is how often rows have it.

    Args:
        answers: of n rows.

    Returns:
        `dict`: "num_predictions", "expected_calibration_error", "negative_log_likelihood" in nats, "brier_score" (the
        squared distance to the true answer, from 0 to 2 for classes and from 0 to 1 for labels), "bins".
    """
    metrics = import_optional("sklearn.metrics", "train")
    if answers.kind == "single":
        classes = np.arange(answers.probabilities.shape[1])
        confidence = answers.probabilities.max(axis=1)
        correct = answers.probabilities.argmax(axis=1) == answers.labels
        nll = metrics.log_loss(answers.labels, answers.probabilities, labels=classes)
        truth = answers.labels[:, None] == classes
        brier = np.square(answers.probabilities - truth).sum(axis=1).mean()
    else:
        known = ~np.isnan(answers.labels)
        confidence, correct = answers.probabilities[known], answers.labels[known]
        nll = metrics.log_loss(correct, confidence, labels=[0, 1])
        brier = metrics.brier_score_loss(correct, confidence, pos_label=1)
    bins = reliability_bins(confidence, correct)
    return {
        "num_predictions": len(confidence),
        "expected_calibration_error": expected_calibration_error(bins),
        "negative_log_likelihood": float(nll),
        "brier_score": float(brier),
        "bins": bins,
    }
