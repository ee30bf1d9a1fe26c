"""Tasks on point clouds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel

from ...data.metrics import restricted_argmax, segmentation_metrics
from ...data.point_cloud.collators import PointCloudCollator
from ...data.point_cloud.datasets import PreparedPointClouds
from ...data.point_cloud.readers import READERS, load_point_cloud_dataset
from ...point_cloud.augmentation import PointCloudAugmentation, random_rotation
from ...point_cloud.modeling_sft_point_cloud import SFTForPointCloudClassification, SFTForPointCloudSegmentation
from ...point_cloud.processing import SFTPointCloudProcessor
from ..recipe import Recipe
from .pretrained import load_pretrained
from .task import ClassificationTask, Task, check_label_names, label_names_of, register_task


class RotatedRows:
    """Rows of a point-cloud data set, each rotated about the origin.

    Args:
        rows: indexable rows with `points` and optionally `normals`, (n, 3) each.
        rotation: `"z"` or `"so3"`.
        seed: row i is rotated by a rotation that is a function of (seed, i).
    """

    def __init__(self, rows: Any, rotation: str, seed: int) -> None:
        self.rows = rows
        self.rotation = rotation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.rows[index])
        matrix = random_rotation(self.rotation, np.random.default_rng((self.seed, index)))
        for name in ("points", "normals"):
            if row.get(name) is not None:
                row[name] = np.asarray(row[name], dtype=np.float64) @ np.asarray(matrix, dtype=np.float64).T
        return row


class PointCloudTask(Task):
    """What all tasks on point clouds share: data, processor, augmentation, rotations."""

    readers = READERS
    load_dataset = staticmethod(load_point_cloud_dataset)
    processor_class = SFTPointCloudProcessor
    augmentation_class = PointCloudAugmentation
    rotations = ("none", "z", "so3")
    target: ClassVar[Literal["label", "point_labels"]] = "label"

    def validate(self, recipe: Recipe) -> None:
        super().validate(recipe)
        if recipe.pretrained is None:
            self._check_neighbors(recipe, self.model_class_of(recipe).config_class(**recipe.model))

    def _check_neighbors(self, recipe: Recipe, config: Any) -> None:
        num_neighbors = self.build_processor(recipe).num_neighbors
        # Baselines find their own neighbours.
        if getattr(config, "num_neighbors", num_neighbors) != num_neighbors:
            raise ValueError(
                f"`processor.num_neighbors` ({num_neighbors}) and `model.num_neighbors` ({config.num_neighbors}) "
                "differ: set both alike."
            )

    def build_model(self, recipe: Recipe, rows: Any, processor: Any) -> PreTrainedModel:
        model_class = self.model_class_of(recipe)
        fields = recipe.model | self.label_fields(recipe, rows)
        if recipe.pretrained is None:
            return model_class(model_class.config_class(**fields))
        model = load_pretrained(model_class, recipe.pretrained, fields)
        self._check_neighbors(recipe, model.config)
        return model

    def label_fields(self, recipe: Recipe, rows: Any) -> dict[str, Any]:
        """Fields of the configuration that the labels decide."""
        return label_names_of(rows, self.target)

    def rotate(self, rows: Any, rotation: str, seed: int) -> Any:
        return RotatedRows(rows, rotation, seed)

    def prepare(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        return PreparedPointClouds(rows, processor, augmentation=augmentation, seed=seed, target=self.target)

    def build_collator(self, processor: Any, config: PreTrainedConfig) -> Callable[[list[dict]], dict]:
        return PointCloudCollator(processor, getattr(config, "num_categories", 0) > 0, config)


@register_task
class PointCloudClassificationTask(ClassificationTask, PointCloudTask):
    """Classification of whole point clouds: accuracy, with a validation split stratified by label."""

    name = "point-cloud-classification"
    model_class = SFTForPointCloudClassification
    column = "label"
    other_tasks = "`point-cloud-segmentation`"


@register_task
class PointCloudSegmentationTask(PointCloudTask):
    """A label for every point, mean IoU per shape.

    With `dataset.use_category` (the default), the shape's category is an input of the model and predictions are
    restricted to the labels that the category has in the training data, as ShapeNetPart is evaluated.
    """

    name = "point-cloud-segmentation"
    model_class = SFTForPointCloudSegmentation
    main_metric = "instance_miou"
    target = "point_labels"
    names_from_data = (*Task.names_from_data, "num_categories", "category_parts")

    def dataset_options(self, recipe: Recipe) -> tuple[str, ...]:
        return (*super().dataset_options(recipe), "use_category")

    def validate(self, recipe: Recipe) -> None:
        super().validate(recipe)
        if not isinstance(recipe.dataset.get("use_category", True), bool):
            raise ValueError(f"`dataset.use_category` must be true or false, got {recipe.dataset['use_category']!r}.")

    def load_rows(self, recipe: Recipe, data_dir: str | Path | None, split: str) -> Any:
        rows = super().load_rows(recipe, data_dir, split)
        if rows is not None and "point_labels" not in rows.features:
            raise ValueError(
                f"`dataset.name` {recipe.dataset['name']} has no labels of points: name another data set."
            )
        return rows

    def label_fields(self, recipe: Recipe, rows: Any) -> dict[str, Any]:
        fields = super().label_fields(recipe, rows)
        if recipe.dataset.get("use_category", True):
            fields["category_parts"] = category_parts_of(rows)
            fields["num_categories"] = len(fields["category_parts"])
        return fields

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        check_label_names(config, rows.features["point_labels"].feature.names)

    def label_names(self, config: PreTrainedConfig) -> list[str] | None:
        return ["labels", "category"] if getattr(config, "num_categories", 0) > 0 else None

    def preprocess_logits(self, config: PreTrainedConfig) -> Callable[[Any, Any], Any] | None:
        def predict(logits: Any, labels: Any) -> Any:
            category = labels[1] if isinstance(labels, tuple) else None
            return restricted_argmax(logits, category, getattr(config, "category_parts", None))

        return predict

    def count_changed_predictions(self, reference: np.ndarray, predictions: np.ndarray) -> int:
        return int((reference != predictions).sum())

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        labels: Any = evaluation.label_ids
        category = None
        if isinstance(labels, tuple):
            labels, category = labels
        parts = None if category is None else getattr(config, "category_parts", None)
        return segmentation_metrics(evaluation.predictions, labels, int(config.num_labels or 0), category, parts)


def category_parts_of(rows: Any) -> list[list[int]]:
    """The labels of points that occur in each category, in ascending order.

    Raises:
        ValueError: if the rows have no categories, or a category does not occur.
    """
    if "label" not in rows.features:
        raise ValueError("The data set has no categories: set `dataset.use_category` to false.")
    names = rows.features["label"].names
    parts: list[set[int]] = [set() for _ in names]
    for category, labels in zip(rows["label"][:], rows["point_labels"][:], strict=True):
        parts[int(category)].update(np.unique(labels).tolist())
    absent = [name for name, found in zip(names, parts, strict=True) if not found]
    if absent:
        raise ValueError(f"No training shape has the category {absent[0]}: set `dataset.use_category` to false.")
    return [sorted(found) for found in parts]
