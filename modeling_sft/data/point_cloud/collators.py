"""Collators: lists of processed items to batches of tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from ...encoder.losses import check_labels
from ...point_cloud.processing import SFTPointCloudProcessor


class PointCloudCollator:
    """Pads items of `PreparedPointClouds` to the largest cloud of the batch.

    Args:
        processor: its `pad` joins the clouds.
        with_category: pass the shape category on to the model, which must have `num_categories`.
        config: of the model; with it, values of labels are checked, which models do on the CPU alone.
    """

    def __init__(
        self, processor: SFTPointCloudProcessor, with_category: bool = False, config: PreTrainedConfig | None = None
    ) -> None:
        self.processor = processor
        self.with_category = with_category
        self.config = config

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Joins items.

        Args:
            items: results of `SFTPointCloudProcessor.preprocess`, with `labels` for all or for none: an integer, a
                float, or a vector of either; or with `point_labels` and, for `with_category`, an integer `category`.

        Returns:
            The padded inputs with `attention_mask` and, where there are some, `labels` (B,), (B, C) or, from
            `point_labels`, (B, N): int64 for integers, float32 for floats; and `category` (B,) int64.

        Raises:
            ValueError: if some items have labels and some have not, if labels differ in shape or the model cannot
                learn them, if a category is missing, or as `SFTPointCloudProcessor.pad`.
        """
        batch = dict(self.processor.pad(items, return_tensors="pt"))
        labeled = ["labels" in item for item in items]
        if any(labeled):
            if "labels" in batch:
                raise ValueError("items have labels and point_labels; give one of the two.")
            if not all(labeled):
                raise ValueError(f"items[{labeled.index(False)}] has no labels and others have; give all or none.")
            labels = [np.asarray(item["labels"]) for item in items]
            if len({label.shape for label in labels}) > 1:
                raise ValueError(f"labels differ in shape: {sorted({label.shape for label in labels})}.")
            stacked = torch.from_numpy(np.stack(labels))
            batch["labels"] = stacked.float() if stacked.is_floating_point() else stacked.long()
        if "labels" in batch and self.config is not None:
            check_labels(batch["labels"], self.config)
        if self.with_category:
            lacking = [position for position, item in enumerate(items) if item.get("category") is None]
            if lacking:
                raise ValueError(f"items[{lacking[0]}] has no category, and this model needs one for every cloud.")
            batch["category"] = torch.tensor([int(item["category"]) for item in items])
        return batch
