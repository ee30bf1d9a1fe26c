"""Logits and labels of tasks with classes or several labels, as probabilities and answers."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EvalPrediction

from modeling_sft.nn.checks import IGNORED_LABEL
from modeling_sft.training.tasks import Task

Kind = Literal["single", "multi"]
_KINDS: dict[str, Kind] = {
    "graph-classification": "single",
    "graph-multi-label-classification": "multi",
    "point-cloud-classification": "single",
    "sequence-classification": "single",
    "sequence-pair-classification": "single",
}


def kind_of(task: Task) -> Kind | None:
    """Whether a task asks for one class per row, for several labels, or for neither (None)."""
    return _KINDS.get(task.name)


class Answers(NamedTuple):
    """What a model said and what was right.

    Attributes:
        kind: `"single"`, one class per row, or `"multi"`, several labels.
        probabilities: (n, C) float64; for `"single"`, each row sums to 1.
        labels: (n,) int64 classes, or (n, C) float64 of 0, 1 and NaN for unknown labels.
    """

    kind: Kind
    probabilities: NDArray[np.float64]
    labels: NDArray[Any]


def answers_of(prediction: EvalPrediction, kind: Kind) -> Answers:
    """Turn the logits of a whole split into probabilities, and mark unknown labels.

    Raises:
        ValueError: if a logit is not finite, or all labels are unknown.
    """
    logits = np.asarray(prediction.predictions, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise ValueError("The model in `folder` gives logits that are not finite: train it again, it has diverged.")
    labels = np.asarray(prediction.label_ids)
    if kind == "single":
        return Answers(kind, torch.from_numpy(logits).softmax(-1).numpy(), labels.astype(np.int64))
    labels = np.where(labels == IGNORED_LABEL, np.nan, labels.astype(np.float64))
    if np.isnan(labels).all():
        raise ValueError("No label of these examples is known: raise `max_examples`, or use another split.")
    return Answers(kind, torch.from_numpy(logits).sigmoid().numpy(), labels)
