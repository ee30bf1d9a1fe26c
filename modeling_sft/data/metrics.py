"""Evaluation metrics, computed by scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def classification_metrics(predictions: ArrayLike, labels: ArrayLike, num_labels: int) -> dict[str, float]:
    """Accuracy and mean class accuracy of single-label classification.

    Args:
        predictions: (n,) class ids, or (n, num_labels) logits.
        labels: (n,) class ids.
        num_labels: the number of classes.

    Returns:
        "accuracy", the share of correct rows, and "mean_class_accuracy", the mean over the classes that occur in
        `labels` of the share of correct rows of the class; both between 0 and 1.

    Raises:
        ValueError: for empty input, different lengths, NaN logits, or class ids outside [0, num_labels).
    """
    try:
        from sklearn.metrics import accuracy_score, recall_score
    except ImportError as error:
        raise ImportError('Metrics need scikit-learn: pip install "modeling-sft[pointclouds]".') from error
    predicted, expected = np.asarray(predictions), np.asarray(labels)
    if expected.ndim != 1 or len(expected) == 0:
        raise ValueError(f"labels must have shape (n,) with n >= 1; got {expected.shape}.")
    if predicted.ndim == 2 and predicted.shape[1] == num_labels:
        if np.isnan(predicted).any():
            raise ValueError("predictions holds NaN logits; the model has diverged or its input was not finite.")
        predicted = predicted.argmax(axis=1)
    if predicted.shape != expected.shape:
        raise ValueError(
            f"predictions must have shape ({len(expected)},) or ({len(expected)}, {num_labels}) to match labels; got "
            f"{predicted.shape}."
        )
    for name, values in (("predictions", predicted), ("labels", expected)):
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= num_labels:
            raise ValueError(f"{name} must hold integers from 0 to {num_labels - 1}; got {np.unique(values)[:5]} ...")
    return {
        "accuracy": float(accuracy_score(expected, predicted)),
        "mean_class_accuracy": float(
            recall_score(expected, predicted, labels=np.unique(expected), average="macro", zero_division=0)
        ),
    }
