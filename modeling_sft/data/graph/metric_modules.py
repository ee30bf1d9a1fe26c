"""The metrics of graph tasks as `evaluate.Metric`s; nothing is downloaded."""

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
            description=description, citation="", inputs_description=description, features=datasets.Features(columns)
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
        return {self.function: getattr(metrics, self.function)(predictions, references, **options)}


def _metric(name: str, function: str, **attributes: Any) -> Any:
    """The class of a metric, which computes a function of `metrics`."""
    about = f"See `metrics.{function}`."
    return type(name, (GraphMetric,), {"__doc__": about, "__module__": __name__, "function": function, **attributes})


CLASS_IDS: dict[str, Any] = {"depths": (0, 0), "dtypes": ("int64", "int64")}

MeanAveragePrecision = _metric("MeanAveragePrecision", "mean_average_precision")
MeanRocAuc = _metric("MeanRocAuc", "mean_roc_auc")
MeanAbsoluteError = _metric("MeanAbsoluteError", "mean_absolute_error")
RootMeanSquaredError = _metric("RootMeanSquaredError", "root_mean_squared_error")
MacroF1 = _metric("MacroF1", "macro_f1", **CLASS_IDS)
Accuracy = _metric("Accuracy", "accuracy", **CLASS_IDS)
# One prediction (n, n) and one reference (2, P) for each graph.
MeanReciprocalRank = _metric("MeanReciprocalRank", "mean_reciprocal_rank", depths=(2, 2), dtypes=("float64", "int64"))
