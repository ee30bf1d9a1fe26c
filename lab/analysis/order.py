"""How far a saved model's answers depend on the order in which points or nodes are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modeling_sft.training.evaluation import Evaluator
from modeling_sft.training.tasks.graphs import GraphTask
from modeling_sft.training.tasks.point_clouds import PointCloudTask

Item = dict[str, Any]

# Above the rounding of sums in another order, and far below what a prediction rests on.
CHANGED = 1e-4
_COLUMNS_OF_POINTS = ("points", "normals", "point_features")
_COLUMNS_OF_NODES = ("node_features", "node_encodings")


class OrderReport(NamedTuple):
    """What a permutation of every row's points or nodes changed.

    Attributes:
        rows: number of rows.
        changed_logits: rows with a logit that moved by more than 1e-4.
        changed_predictions: rows whose most likely class, or any of several labels, differs.
        median, largest: of the rows' largest absolute change of a logit.
    """

    rows: int
    changed_logits: int
    changed_predictions: int
    median: float
    largest: float

    def __str__(self) -> str:
        return (
            f"{self.changed_logits} of {self.rows} rows ({self.changed_logits / self.rows:.2%}) change a logit by "
            f"more than {CHANGED:g} (median of all {self.median:.1e}, largest {self.largest:.1e}), "
            f"{self.changed_predictions} change their prediction"
        )


def measure_order(
    folder: str | Path, data_dir: str | Path | None = None, seed: int = 0, limit: int | None = None
) -> OrderReport:
    """Predict the test split twice, the second time with the points or nodes of every row permuted.

    Clouds are permuted behind the processor's sub-sample, so that both passes see the same points, and what the
    processor computes (neighbours, moments) is computed anew.

    Args:
        folder: a saved model with its processor and recipe.
        data_dir: where the data sets lie.
        seed: row i is permuted by a function of (seed, i).
        limit: only so many rows, from the first on.

    Raises:
        ValueError: the folder does not fit, or the model reads neither clouds nor graphs.
    """
    evaluator = Evaluator(folder)
    if not isinstance(evaluator.task, PointCloudTask | GraphTask):
        raise ValueError(f"The order matters for the task {evaluator.task.name}: give a model of clouds or graphs.")
    data = evaluator.prepare(evaluator.load_rows(data_dir))
    items = [dict(data[row]) for row in range(len(data) if limit is None else min(limit, len(data)))]
    generators = [np.random.default_rng((seed, row)) for row in range(len(items))]
    if isinstance(evaluator.task, GraphTask):
        others = [_permuted_graph(item, rng) for item, rng in zip(items, generators, strict=True)]
    else:
        identity = [np.arange(len(item["points"])) for item in items]
        others = [
            _permuted_cloud(item, rng.permutation(len(item["points"])), evaluator.processor)
            for item, rng in zip(items, generators, strict=True)
        ]
        items = [
            _permuted_cloud(item, order, evaluator.processor) for item, order in zip(items, identity, strict=True)
        ]
    first, second = (np.asarray(evaluator.predict(rows).predictions, np.float64) for rows in (items, others))
    change = np.abs(first - second).reshape(len(first), -1).max(axis=1)
    several = getattr(evaluator.model.config, "problem_type", None) == "multi_label_classification"
    answers = [logits > 0 if several else logits.argmax(axis=-1)[:, None] for logits in (first, second)]
    return OrderReport(
        rows=len(first),
        changed_logits=int((change > CHANGED).sum()),
        changed_predictions=int((answers[0] != answers[1]).any(axis=1).sum()),
        median=float(np.median(change)),
        largest=float(change.max()),
    )


def _permuted_cloud(item: Item, order: NDArray[np.int64], processor: Any) -> Item:
    columns = {name: np.asarray(item[name])[order] for name in _COLUMNS_OF_POINTS if item.get(name) is not None}
    return {**processor.preprocess(**columns, seed=0), "labels": item["labels"]}


def _permuted_graph(item: Item, rng: np.random.Generator) -> Item:
    columns = [name for name in _COLUMNS_OF_NODES if item.get(name) is not None]
    count = len(item[columns[0]])
    order, edge_order = rng.permutation(count), rng.permutation(np.asarray(item["edge_index"]).shape[1])
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    permuted = {**item, **{name: np.asarray(item[name])[order] for name in columns}}
    permuted["edge_index"] = place[np.asarray(item["edge_index"])][:, edge_order]
    if item.get("edge_features") is not None:
        permuted["edge_features"] = np.asarray(item["edge_features"])[edge_order]
    return permuted
