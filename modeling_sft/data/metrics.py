"""Evaluation metrics, computed by scikit-learn."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..hub.optional import import_optional
from ..nn.checks import IGNORED_LABEL


def classification_metrics(predictions: ArrayLike, labels: ArrayLike, num_labels: int) -> dict[str, float]:
    """Accuracy and mean class accuracy of single-label classification; of two classes also F1 and area under ROC.

    Args:
        predictions: (n,) class ids, or (n, num_labels) logits.
        labels: (n,) class ids, -100 for rows that do not count.
        num_labels: the number of classes.

    Returns:
        "accuracy", the share of correct rows, and "mean_class_accuracy", the mean over the classes that occur in
        `labels` of the share of correct rows of the class. Of two classes, of which 1 is the positive one, also "f1"
        and, if logits are given, "roc_auc", NaN where one class alone occurs. All are between 0 and 1.

    Raises:
        ValueError: for no row that counts, different lengths, NaN logits, or class ids outside [0, num_labels).
    """
    metrics = import_optional("sklearn.metrics", "pointclouds")
    predicted, expected = np.asarray(predictions), np.asarray(labels)
    scores = None
    if expected.ndim != 1 or len(expected) == 0:
        raise ValueError(f"labels must have shape (n,) with n >= 1; got {expected.shape}.")
    if predicted.ndim == 2 and predicted.shape[1] == num_labels:
        if np.isnan(predicted).any():
            raise ValueError("predictions holds NaN logits; the model has diverged or its input was not finite.")
        if num_labels == 2:
            scores = np.diff(predicted.astype(np.float64))[:, 0]
        predicted = predicted.argmax(axis=1)
    if predicted.shape != expected.shape:
        raise ValueError(
            f"predictions must have shape ({len(expected)},) or ({len(expected)}, {num_labels}) to match labels; got "
            f"{predicted.shape}."
        )
    counted = expected != IGNORED_LABEL
    if not counted.any():
        raise ValueError(f"labels are all {IGNORED_LABEL}.")
    predicted, expected = predicted[counted], expected[counted]
    for name, values in (("predictions", predicted), ("labels", expected)):
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= num_labels:
            raise ValueError(f"{name} must hold integers from 0 to {num_labels - 1}; got {np.unique(values)[:5]} ...")
    results = {
        "accuracy": float(metrics.accuracy_score(expected, predicted)),
        "mean_class_accuracy": float(
            metrics.recall_score(expected, predicted, labels=np.unique(expected), average="macro", zero_division=0)
        ),
    }
    if num_labels == 2:
        results["f1"] = float(metrics.f1_score(expected, predicted, zero_division=0))
    if scores is not None:
        is_defined = len(np.unique(expected)) == 2
        results["roc_auc"] = float(metrics.roc_auc_score(expected, scores[counted])) if is_defined else math.nan
    return results


def restricted_argmax(
    logits: torch.Tensor, category: torch.Tensor | None = None, category_parts: Sequence[Sequence[int]] | None = None
) -> torch.Tensor:
    """The most likely label of each point, among the parts of its shape's category where these are known.

    Args:
        logits: (B, N, C) float.
        category: (B,) long, or None.
        category_parts: the labels of each category, or None.

    Returns:
        (B, N) long.
    """
    if category is not None and category_parts is not None:
        allowed = torch.zeros(len(category_parts), logits.shape[-1], dtype=torch.bool, device=logits.device)
        for row, parts in enumerate(category_parts):
            allowed[row, list(parts)] = True
        logits = logits.masked_fill(~allowed[category][:, None], -torch.inf)
    return logits.argmax(-1)


def segmentation_metrics(
    predictions: ArrayLike,
    labels: ArrayLike,
    num_labels: int,
    category: ArrayLike | None = None,
    category_parts: Sequence[Sequence[int]] | None = None,
) -> dict[str, float]:
    """Point accuracy and mean intersection over union (IoU), as ShapeNetPart is evaluated (arXiv 1612.00593, 5.2).

    The IoU of a shape is the mean over its labels: those of its category where categories are given, and those that
    occur among its true or predicted labels otherwise. A label that a shape neither has nor is given counts as 1.

    Args:
        predictions: (n, N) label ids.
        labels: (n, N) label ids, -100 for points that do not count (padding).
        num_labels: the number of labels.
        category: (n,) shape categories, or None.
        category_parts: the labels of each category; given exactly when `category` is.

    Returns:
        "instance_miou", the mean over all shapes; "class_miou", the mean over the categories of the mean over their
        shapes (with categories), or the mean over the labels that occur of the IoU over all points of all shapes
        (without); "accuracy", the share of correct points. All between 0 and 1.

    Raises:
        ValueError: for shapes that differ, a shape without a labelled point, or ids outside their range.
    """
    predicted, expected = np.asarray(predictions), np.asarray(labels)
    if expected.ndim != 2 or expected.size == 0 or predicted.shape != expected.shape:
        raise ValueError(
            f"predictions and labels must both have shape (n, N) with n, N >= 1; got {predicted.shape} and "
            f"{expected.shape}."
        )
    if (category is None) != (category_parts is None):
        raise ValueError("category and category_parts must be given together, or neither.")
    counted = expected != IGNORED_LABEL
    if not counted.any(axis=1).all():
        raise ValueError(f"labels of shape {int(np.argmin(counted.any(axis=1)))} are all {IGNORED_LABEL}.")
    for name, values in (("predictions", predicted), ("labels", expected)):
        values = values[counted]
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= num_labels:
            raise ValueError(f"{name} must hold integers from 0 to {num_labels - 1}; got {np.unique(values)[:5]} ...")
    categories = None if category is None else np.asarray(category)
    if categories is not None and category_parts is not None:
        if categories.shape != (len(expected),) or categories.min() < 0 or categories.max() >= len(category_parts):
            raise ValueError(f"category must be one integer per shape from 0 to {len(category_parts) - 1}.")

    jaccard_score = import_optional("sklearn.metrics", "pointclouds").jaccard_score
    instance_iou = np.empty(len(expected))
    for row, used in enumerate(counted):
        truth, guess = expected[row, used], predicted[row, used]
        if categories is not None and category_parts is not None:
            parts = list(category_parts[categories[row]])
            outside = np.setdiff1d(truth, parts)
            if len(outside):
                raise ValueError(f"labels of shape {row} hold {outside[0]}, no part of its category ({parts}).")
        else:
            parts = np.union1d(truth, guess).tolist()
        instance_iou[row] = jaccard_score(truth, guess, labels=parts, average="macro", zero_division=1.0)
    if categories is None:
        class_miou = jaccard_score(
            expected[counted], predicted[counted], labels=np.unique(expected[counted]), average="macro"
        )
    else:
        class_miou = np.mean([instance_iou[categories == one].mean() for one in np.unique(categories)])
    return {
        "instance_miou": float(instance_iou.mean()),
        "class_miou": float(class_miou),
        "accuracy": float((predicted == expected)[counted].mean()),
    }


def regression_metrics(predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Errors of predicted numbers.

    Args:
        predictions: (n,) or (n, 1) finite numbers.
        labels: likewise, NaN for rows that do not count.

    Returns:
        "mean_absolute_error" and "root_mean_squared_error", in units of the labels, and "r2", the share of the
        variance explained.

    Raises:
        ValueError: for no row that counts, different lengths, or numbers that are not finite.
    """
    guessed, expected = np.asarray(predictions, np.float64).reshape(-1), np.asarray(labels, np.float64).reshape(-1)
    if len(guessed) == len(expected):
        counted = ~np.isnan(expected)
        guessed, expected = guessed[counted], expected[counted]
    metrics = import_optional("sklearn.metrics", "sequences")
    return {
        "mean_absolute_error": float(metrics.mean_absolute_error(expected, guessed)),
        "root_mean_squared_error": float(metrics.root_mean_squared_error(expected, guessed)),
        "r2": float(metrics.r2_score(expected, guessed)) if len(expected) > 1 else float("nan"),
    }


def masked_token_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """How well masked tokens were predicted.

    Args:
        scores: (n, L, 2) of each token, the cross-entropy of its prediction in nats and whether the best guess was
            right, 1 or 0.
        labels: (n, L) token ids, -100 where nothing was masked.

    Returns:
        "cross_entropy" in nats, "bits_per_token" and "perplexity" that follow from it, and "accuracy".

    Raises:
        ValueError: for shapes that do not fit, or no masked token.
    """
    values, expected = np.asarray(scores, np.float64), np.asarray(labels)
    if values.shape != (*expected.shape, 2):
        raise ValueError(f"scores has shape {values.shape}; expected {(*expected.shape, 2)}.")
    masked = expected != IGNORED_LABEL
    if not masked.any():
        raise ValueError("labels has no masked token.")
    loss = float(values[masked][:, 0].mean())
    return {
        "cross_entropy": loss,
        "bits_per_token": loss / math.log(2),
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "accuracy": float(values[masked][:, 1].mean()),
    }
