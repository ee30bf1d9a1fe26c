"""The metrics of graph tasks as `evaluate.Metric`s; nothing is downloaded."""

from __future__ import annotations

from typing import Any

from ...hub.optional import import_optional
from . import metrics

evaluate: Any = import_optional("evaluate", "graphs")
Metric: Any = evaluate.Metric
datasets = import_optional("datasets", "graphs")


class GraphMetric(Metric):
    """A function of `metrics`.

    `compute(predictions=..., references=...)` and `add_batch` take the function's two arguments, (n, T) for labels and
    targets and (n,) for classes, and `compute` its options; the result is a dictionary with the function's name as its
    key. All that was added is evaluated at once, not batch by batch.
    """

    function = ""
    """Name of the function."""
    depths = (1, 1)
    """Dimensions of one prediction and one reference."""
    dtypes = ("float64", "float64")

    def _info(self) -> Any:
        columns = {}
        for name, depth, dtype in zip(("predictions", "references"), self.depths, self.dtypes):
            columns[name] = datasets.Value(dtype)
            for _ in range(depth):
                columns[name] = datasets.Sequence(columns[name])
        description = getattr(metrics, self.function).__doc__
        return evaluate.MetricInfo(
            description=description,
            citation="",
            inputs_description=description,
            features=datasets.Features(columns),
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
        return {self.function: getattr(metrics, self.function)(predictions, references, **options)}


class MeanAveragePrecision(GraphMetric):
    """See `metrics.mean_average_precision`."""

    function = "mean_average_precision"


class MeanRocAuc(GraphMetric):
    """See `metrics.mean_roc_auc`."""

    function = "mean_roc_auc"


class MeanAbsoluteError(GraphMetric):
    """See `metrics.mean_absolute_error`."""

    function = "mean_absolute_error"


class RootMeanSquaredError(GraphMetric):
    """See `metrics.root_mean_squared_error`."""

    function = "root_mean_squared_error"


class MacroF1(GraphMetric):
    """See `metrics.macro_f1`; predictions are class ids."""

    function = "macro_f1"
    depths = (0, 0)
    dtypes = ("int64", "int64")


class Accuracy(GraphMetric):
    """See `metrics.accuracy`; predictions are class ids."""

    function = "accuracy"
    depths = (0, 0)
    dtypes = ("int64", "int64")


class MeanReciprocalRank(GraphMetric):
    """See `metrics.mean_reciprocal_rank`: one prediction (n, n) and one reference (2, P) for each graph."""

    function = "mean_reciprocal_rank"
    depths = (2, 2)
    dtypes = ("float64", "int64")
