"""Where a model fails: which classes it confuses, which examples it gets wrong, which labels it cannot tell.

Examples are named by their index in the split, never copied: data sets have licences of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modeling_sft.hub.optional import import_optional

from .classification import Answers

NUM_CONFUSIONS = 5
NUM_EXAMPLES = 12


def find_failures(answers: Answers, names: Sequence[str], indices: Sequence[int]) -> dict[str, Any]:
    """List the failures on a split.

    Args:
        answers: of n rows and C classes or labels.
        names: of the C classes or labels.
        indices: the place of each row in the split.

    Returns:
        `dict`: For one class per row "classes", "confusion_matrix" (C, C) with true classes down and predicted ones
        across, "confusions" (the 5 most frequent pairs of "true" and "predicted" names with their "count"),
        "num_wrong" and "examples" (the 12 most confident wrong ones: "index", "true", "predicted", "confidence").
        For several labels "labels": each has its "name", how many examples are "known" and "positive", and
        "average_precision" and "roc_auc", which are None if they are not defined.
    """
    if answers.kind == "multi":
        return {"labels": [_label_failures(answers, column, name) for column, name in enumerate(names)]}
    metrics = import_optional("sklearn.metrics", "train")
    predicted, confidence = answers.probabilities.argmax(axis=1), answers.probabilities.max(axis=1)
    matrix = metrics.confusion_matrix(answers.labels, predicted, labels=np.arange(len(names)))
    off_diagonal = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-off_diagonal, axis=None, kind="stable")[:NUM_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order]
    wrong = np.flatnonzero(predicted != answers.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_EXAMPLES]
    return {
        "classes": list(names),
        "confusion_matrix": matrix.tolist(),
        "confusions": [
            {"true": names[true], "predicted": names[guess], "count": int(off_diagonal[true, guess])}
            for true, guess in pairs
            if off_diagonal[true, guess] > 0
        ],
        "num_wrong": len(wrong),
        "examples": [
            {
                "index": int(indices[row]),
                "true": names[answers.labels[row]],
                "predicted": names[predicted[row]],
                "confidence": float(confidence[row]),
            }
            for row in worst
        ],
    }


def _label_failures(answers: Answers, column: int, name: str) -> dict[str, Any]:
    metrics = import_optional("sklearn.metrics", "train")
    known = ~np.isnan(answers.labels[:, column])
    truth, score = answers.labels[known, column], answers.probabilities[known, column]
    is_defined = bool((truth == 1).any() and (truth == 0).any())
    return {
        "name": name,
        "known": int(known.sum()),
        "positive": int((truth == 1).sum()),
        "average_precision": float(metrics.average_precision_score(truth, score)) if is_defined else None,
        "roc_auc": float(metrics.roc_auc_score(truth, score)) if is_defined else None,
    }
