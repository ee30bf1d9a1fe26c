"""Collators: lists of processed items to batches of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..processing_point_cloud_sft import SFTPointCloudProcessor


class PointCloudCollator:
    """Pads items of `PreparedPointClouds` to the largest cloud of the batch.

    Args:
        processor: its `pad` joins the clouds.
    """

    def __init__(self, processor: SFTPointCloudProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Joins items.

        Args:
            items: results of `SFTPointCloudProcessor.preprocess`, with `labels` for all or for none: an integer, a
                float, or a vector of either.

        Returns:
            The padded inputs with `attention_mask` and, where there are some, `labels` (B,) or (B, C): int64 for
            integers, float32 for floats.

        Raises:
            ValueError: if some items have labels and some have not, if labels differ in shape, or as
                `SFTPointCloudProcessor.pad`.
        """
        batch = dict(self.processor.pad(items, return_tensors="pt"))
        labeled = ["labels" in item for item in items]
        if any(labeled):
            if not all(labeled):
                raise ValueError(f"items[{labeled.index(False)}] has no labels and others have; give all or none.")
            labels = [np.asarray(item["labels"]) for item in items]
            if len({label.shape for label in labels}) > 1:
                raise ValueError(f"labels differ in shape: {sorted({label.shape for label in labels})}.")
            stacked = torch.from_numpy(np.stack(labels))
            batch["labels"] = stacked.float() if stacked.is_floating_point() else stacked.long()
        return batch
