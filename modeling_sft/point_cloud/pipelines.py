"""Pipelines of point clouds: files, arrays or PyG objects in; classes, labelled points or vectors out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..hub.pipelines import ClassificationPipeline, FeatureExtractionPipeline, SFTPipeline, TokenClassificationPipeline
from .inputs import CloudInput, read_cloud, validated_points
from .seeding import Seed, seed_words

INPUTS = ("points", "normals", "point_features", "category")
LABELS = ("label", "point_labels")


class PointCloudPipeline(SFTPipeline):
    """Base of the pipelines of point clouds.

    An input is points (n, 3), the path of a file (see `load_point_cloud`), a PyTorch Geometric `Data`, or a mapping
    with one of these as `points` and, where the model has them, `normals` (n, 3), `point_features` (n, F) and
    `category`, an integer. Labels that rows of data sets also have are not read.

    Args of a call:
        seed: draws the points of meshes and the `num_points` of the processor; 0 by default.
    """

    input_name = "points"
    processor_name = "SFTPointCloudProcessor"

    def _prepare(self, inputs: Any, seed: Seed = 0) -> dict[str, Any]:
        fields = dict(inputs) if isinstance(inputs, Mapping) else {"points": inputs}
        unknown = [name for name in fields if name not in (*INPUTS, *LABELS)]
        if unknown or "points" not in fields:
            problem = f"the unknown key {unknown[0]!r}" if unknown else "no key 'points'"
            raise ValueError(f"A cloud has {problem}; the keys are {', '.join(INPUTS)}.")
        category = self._checked_category(fields.get("category"))
        item = self._prepare_cloud(CloudInput(*(fields.get(name) for name in INPUTS[:3])), seed)
        return item if category is None else item | {"category": category}

    def _prepare_cloud(self, cloud: CloudInput, seed: Seed) -> dict[str, Any]:
        item = self.feature_extractor.preprocess(*cloud[:3], seed=seed)
        item.pop("point_labels", None)
        return dict(item)

    def _checked_category(self, category: Any) -> int | None:
        count = getattr(self.model.config, "num_categories", 0)
        if (category is not None) != (count > 0):
            remedy = f'pass {{"points": ..., "category": 0 to {count - 1}}}' if count else "leave it out"
            raise ValueError(f"`category` does not fit the model, which has {count} categories of shapes: {remedy}.")
        if category is not None and not 0 <= int(category) < count:
            raise ValueError(f"`category` is {category}: it must be from 0 to {count - 1}.")
        return None if category is None else int(category)

    def _batch(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super()._batch(items)
        if "category" in items[0]:
            batch["category"] = torch.tensor([item["category"] for item in items], device=self.device)
        return batch


class PointCloudClassificationPipeline(PointCloudPipeline, ClassificationPipeline):
    """Classifies point clouds, or predicts numbers of them.

    Example:
    ```python
    >>> from transformers import pipeline
    >>> import modeling_sft

    >>> classify = pipeline("point-cloud-classification", model="runs/meshes")
    >>> classify(["chair.off", "table.stl"], batch_size=2, top_k=1)
    ```
    """

    task_name = "point-cloud-classification"
    head_name = "ForPointCloudClassification"
    stages = {**ClassificationPipeline.stages, "seed": "preprocess"}


class PointCloudSegmentationPipeline(PointCloudPipeline, TokenClassificationPipeline):
    """Labels the points of clouds.

    The answer for a cloud also has `points` (m, 3), the labelled points in the coordinates of the input, and `index`
    (m,), their places in it: the processor may keep `num_points` of them only. Where the model has categories with
    parts of their own, only the parts of the cloud's `category` are given.
    """

    task_name = "point-cloud-segmentation"
    head_name = "ForPointCloudSegmentation"
    stages = {"seed": "preprocess"}

    def _prepare_cloud(self, cloud: CloudInput, seed: Seed) -> dict[str, Any]:
        cloud = read_cloud(cloud, self.feature_extractor.num_mesh_points, seed_words(seed))
        points = validated_points(cloud.points)
        # Places travel as labels do, through whatever the processor leaves out.
        places = np.arange(len(points))
        item = dict(self.feature_extractor.preprocess(points, *cloud[1:3], point_labels=places, seed=seed))
        item["index"] = item.pop("point_labels")
        item["source_points"] = points[item["index"]]
        return item

    def _restricted(self, logits: Tensor, item: dict[str, Any]) -> Tensor:
        parts = getattr(self.model.config, "category_parts", None)
        if parts is None or "category" not in item:
            return logits
        impossible = torch.ones(logits.shape[-1], dtype=torch.bool)
        impossible[parts[item["category"]]] = False
        return logits.masked_fill(impossible, -torch.inf)

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """The answer for one cloud: that of [`TokenClassificationPipeline`], with `points` and `index`."""
        _, item = self._first(model_outputs)
        return {"points": item["source_points"], "index": item["index"], **super().postprocess(model_outputs)}


class PointCloudFeatureExtractionPipeline(PointCloudPipeline, FeatureExtractionPipeline):
    """Embeds point clouds; also by the backbone of a model with a head."""

    task_name = "point-cloud-feature-extraction"
    stages = {**FeatureExtractionPipeline.stages, "seed": "preprocess"}
