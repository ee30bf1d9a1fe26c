"""Tasks on graphs: classification, several labels, regression, classes of nodes, and links."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel

from ...data.graph.collators import GraphCollator
from ...data.graph.datasets import PreparedGraphs
from ...data.graph.metrics import (
    macro_f1,
    mean_absolute_error,
    mean_average_precision,
    mean_roc_auc,
    root_mean_squared_error,
)
from ...data.graph.readers import GRAPH_READERS, load_graph_dataset
from ...data.metrics import classification_metrics
from ...graph.modeling_sft_graph import SFTForGraphClassification, SFTForLinkPrediction, SFTForNodeClassification
from ...graph.processing import SFTGraphProcessor
from ...nn.checks import IGNORED_LABEL
from ..recipe import Recipe
from .pretrained import load_pretrained
from .task import ClassificationTask, Task, check_label_names, id_fields, label_names_of, register_task


class GraphTask(Task):
    """What all tasks on graphs share: data, processor, collator, and the sizes that the data decide.

    Vocabulary sizes are those of OGB for molecules. Elsewhere they are found in the training data, unless the recipe
    states them: it should, where other splits may have further categories.
    """

    processor_class = SFTGraphProcessor
    readers = GRAPH_READERS
    load_dataset = staticmethod(load_graph_dataset)
    names_from_data = (
        *(*Task.names_from_data, "num_node_features", "num_edge_features", "num_node_encodings"),
        *("num_graph_features", "graph_feature_mean", "graph_feature_scale"),
    )

    def build_model(self, recipe: Recipe, rows: Any, processor: Any) -> PreTrainedModel:
        model_class = self.model_class_of(recipe)
        fields = recipe.model | self._with_target_names(self.output_fields(rows), recipe)
        fields["num_node_encodings"] = processor.num_node_encodings
        fields |= _graph_feature_fields(rows, processor)
        if recipe.pretrained is not None:
            # Its features are those it was trained on: other data must have the same.
            return load_pretrained(model_class, recipe.pretrained, fields)
        return model_class(model_class.config_class(**self.feature_fields(recipe, rows) | fields))

    def feature_fields(self, recipe: Recipe, rows: Any) -> dict[str, Any]:
        """Fields of the configuration that the features of nodes and edges decide."""
        if self.readers[recipe.dataset["name"]].is_molecular:
            return SFTGraphProcessor.molecule_vocab_sizes()
        fields: dict[str, Any] = {}
        for column, name in (("node_feat", "node"), ("edge_attr", "edge")):
            if column not in rows.column_names:
                continue
            first = np.asarray(rows[0][column])
            if first.dtype.kind == "f":
                fields[f"num_{name}_features"] = first.shape[1]
            elif f"{name}_vocab_sizes" not in recipe.model:
                fields[f"{name}_vocab_sizes"] = _numbers_of_categories(rows, column)
        return fields

    def _with_target_names(self, fields: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
        """Names in place of the number of labels, where the data set knows them."""
        find_names = self.readers[recipe.dataset["name"]].target_names
        if "num_labels" not in fields or find_names is None:
            return fields
        names = find_names(**self.reader_arguments(recipe))
        if names is None:
            return fields
        return {name: value for name, value in fields.items() if name != "num_labels"} | id_fields(names)

    def prepare(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        return PreparedGraphs(rows, processor)

    def prepare_training(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        return PreparedGraphs(rows, processor, flip_signs=True, seed=seed)

    def build_collator(self, processor: Any, config: PreTrainedConfig) -> Callable[[Any], dict]:
        return GraphCollator(processor, config)


@register_task
class GraphClassificationTask(ClassificationTask, GraphTask):
    """One class for every graph: accuracy."""

    name = "graph-classification"
    model_class: ClassVar[Any] = SFTForGraphClassification
    column = "y"
    other_tasks = "`graph-multi-label-classification`, `graph-regression` or `node-classification`"


class GraphTargetsTask(GraphTask):
    """What tasks with a list of numbers for every graph share."""

    model_class = SFTForGraphClassification
    column_task: ClassVar[str]
    """The `task` of the reader of molecules that makes the numbers of one column such a list."""

    def num_targets(self, rows: Any) -> int:
        """The length of the lists."""
        feature = rows.features.get("y")
        if not str(getattr(getattr(feature, "feature", None), "dtype", "")).startswith("float"):
            raise ValueError(
                f"`dataset` has no lists of numbers in its column `y`: task `{self.name}` does not fit it. A single "
                f"column of molecules is one by `dataset.task` {self.column_task}."
            )
        return feature.length if feature.length > 0 else len(rows[0]["y"])

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        found = self.num_targets(rows)
        if found != config.num_labels:
            raise ValueError(f"`dataset` has {found} targets, the model was trained for {config.num_labels}.")


@register_task
class GraphMultiLabelClassificationTask(GraphTargetsTask):
    """Several labels for every graph, missing ones among them: mean average precision and mean area under ROC."""

    name = "graph-multi-label-classification"
    main_metric = "average_precision"
    column_task = "labels"

    def output_fields(self, rows: Any) -> dict[str, Any]:
        return {"num_labels": self.num_targets(rows), "problem_type": "multi_label_classification"}

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        return _ranking_metrics(np.asarray(evaluation.predictions), np.asarray(evaluation.label_ids))


@register_task
class GraphRegressionTask(GraphTargetsTask):
    """One or several numbers for every graph, learned as normalised by the training data: mean absolute error."""

    name = "graph-regression"
    column_task = "regression"
    main_metric = "mean_absolute_error"
    greater_is_better = False
    names_from_data = (*GraphTask.names_from_data, "target_mean", "target_scale")
    plain_metrics = ("mean_absolute_error", "root_mean_squared_error")

    def output_fields(self, rows: Any) -> dict[str, Any]:
        num_labels = self.num_targets(rows)
        targets = np.asarray(rows.with_format("numpy", columns=["y"])["y"], dtype=np.float64)
        mean, scale = _mean_and_scale(targets)
        return {"num_labels": num_labels, "problem_type": "regression", "target_mean": mean, "target_scale": scale}

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        predicted, expected = np.asarray(evaluation.predictions), np.asarray(evaluation.label_ids)
        return {
            "mean_absolute_error": mean_absolute_error(predicted, expected),
            "root_mean_squared_error": root_mean_squared_error(predicted, expected),
        }


@register_task
class NodeClassificationTask(GraphTask):
    """One class for every node that has a label: accuracy and macro F1, of two classes also F1 and area under ROC."""

    name = "node-classification"
    model_class = SFTForNodeClassification
    main_metric = "accuracy"

    def output_fields(self, rows: Any) -> dict[str, Any]:
        feature = getattr(rows.features.get("y"), "feature", None)
        if not str(getattr(feature, "dtype", "")).startswith("int"):
            raise ValueError("`dataset` has no classes of nodes in its column `y`: train `graph-classification`.")
        if hasattr(feature, "names"):
            return label_names_of(rows, "y")
        return {"num_labels": 1 + max(int(np.max(row["y"])) for row in rows.with_format("numpy", columns=["y"]))}

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        feature = rows.features["y"].feature
        if hasattr(feature, "names"):
            check_label_names(config, feature.names)

    def preprocess_logits(self, config: PreTrainedConfig) -> Callable[[Any, Any], Any] | None:
        # The area under ROC needs the logits of two classes; those of many classes would take much memory.
        return None if config.num_labels == 2 else lambda logits, labels: logits.argmax(-1)

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        labels = np.asarray(evaluation.label_ids)
        counted = labels != IGNORED_LABEL
        predicted, expected = np.asarray(evaluation.predictions)[counted], labels[counted]
        metrics = classification_metrics(predicted, expected, int(config.num_labels or 0))
        del metrics["mean_class_accuracy"]
        return metrics | {"macro_f1": macro_f1(predicted, expected)}


@register_task
class LinkPredictionTask(GraphTask):
    """Whether there is a link between two nodes, for given pairs: average precision and area under ROC."""

    name = "link-prediction"
    model_class = SFTForLinkPrediction
    main_metric = "average_precision"

    def output_fields(self, rows: Any) -> dict[str, Any]:
        if "edge_label_index" not in rows.column_names:
            raise ValueError("`dataset` has no pairs of nodes in its column `edge_label_index`.")
        return {}

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        self.output_fields(rows)

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        labels = np.asarray(evaluation.label_ids)
        counted = labels != IGNORED_LABEL
        return _ranking_metrics(np.asarray(evaluation.predictions)[counted], labels[counted])


def _graph_feature_fields(rows: Any, processor: SFTGraphProcessor) -> dict[str, Any]:
    """Fields of the configuration that descriptors of the training data decide."""
    if not processor.descriptors:
        return {"num_graph_features": 0, "graph_feature_mean": None, "graph_feature_scale": None}
    columns = [name for name in ("node_feat", "edge_index", "edge_attr") if name in rows.column_names]
    features = [processor.graph_features(row) for row in rows.with_format("numpy", columns=columns)]
    mean, scale = _mean_and_scale(np.stack(features).astype(np.float64))
    return {"num_graph_features": len(mean), "graph_feature_mean": mean, "graph_feature_scale": scale}


def _mean_and_scale(columns: np.ndarray) -> tuple[list[float], list[float]]:
    """Of columns `(n, C)` without what is missing; one that never changes is left in its own unit."""
    scale = np.nanstd(columns, axis=0)
    return np.nanmean(columns, axis=0).tolist(), np.where(scale > 0, scale, 1.0).tolist()


def _ranking_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"average_precision": mean_average_precision(scores, labels), "roc_auc": mean_roc_auc(scores, labels)}


def _numbers_of_categories(rows: Any, column: str) -> list[int]:
    largest = [np.asarray(row[column]).max(axis=0, initial=0) for row in rows.with_format("numpy", columns=[column])]
    return (np.max(largest, axis=0) + 1).astype(int).tolist()
