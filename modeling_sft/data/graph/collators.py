"""The collator of graphs: items to padded batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig

from ...encoder.losses import check_labels
from ...graph.processing import SFTGraphProcessor
from ...nn.checks import check_classes


class GraphCollator:
    """Pads items of `PreparedGraphs` to the most nodes and edges of the batch.

    Args:
        processor: its `pad` joins the graphs.
        config: of the model; with it, values of labels are checked, which models do on the CPU alone.
    """

    def __init__(self, processor: SFTGraphProcessor, config: PreTrainedConfig | None = None) -> None:
        self.processor = processor
        self.config = config

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Joins items.

        Args:
            items: results of `SFTGraphProcessor.item`.

        Returns:
            The tensors that `SFTGraphProcessor.pad` describes.

        Raises:
            ValueError: as `SFTGraphProcessor.pad`, and for labels that the model cannot learn.
        """
        batch = dict(self.processor.pad(items, return_tensors="pt"))
        if "node_pairs" in batch and "labels" in batch:
            check_classes("labels", batch["labels"], 2)
        elif "labels" in batch and self.config is not None:
            check_labels(batch["labels"], self.config)
        return batch
