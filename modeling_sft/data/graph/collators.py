"""The collator of graphs: items to padded batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...graph.processing import SFTGraphProcessor


class GraphCollator:
    """Pads items of `PreparedGraphs` to the most nodes and edges of the batch.

    Args:
        processor: its `pad` joins the graphs.
    """

    def __init__(self, processor: SFTGraphProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Joins items.

        Args:
            items: results of `SFTGraphProcessor.item`.

        Returns:
            The tensors that `SFTGraphProcessor.pad` describes.

        Raises:
            ValueError: as `SFTGraphProcessor.pad`.
        """
        return dict(self.processor.pad(items, return_tensors="pt"))
