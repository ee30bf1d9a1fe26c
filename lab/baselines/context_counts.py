"""The readout of context hashes alone: what SFT's classifiers know without token states, layers and attention.

A linear map of a vector that counts the neighbourhoods of a row, and of its activation (docs/design.md, section 6).
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from modeling_sft.configuration_sft import SFTConfig
from modeling_sft.encoder.heads import SFTClassificationHead
from modeling_sft.graph.modeling_sft_graph import SFTForGraphClassification
from modeling_sft.sequence.modeling_sft import SFTForSequenceClassification

from .graphs import GraphBaselineConfig


@strict
class SequenceCountsConfig(SFTConfig):
    """`SFTConfig`, whose fields about layers have no effect here."""

    model_type = "sequence_counts"

    def __post_init__(self, **kwargs: Any) -> None:
        # Name no remote code: a baseline loads with this package only.
        super().__post_init__(**(kwargs | {"auto_map": {}}))


SequenceCountsConfig._auto_class = None


class NoEncoder(nn.Module):
    """Leaves the embedded tokens as they are."""

    def forward(self, hidden_states: Tensor, *_: Any) -> Tensor:
        return hidden_states


class CountsHead(SFTClassificationHead):
    """The part of the classification head that reads counts.

    Raises:
        ValueError: the configuration counts no neighbourhoods.
    """

    def __init__(self, config: Any, **sizes: int) -> None:
        super().__init__(config, **sizes)
        if self.counts is None:
            raise ValueError("The baseline context_counts needs context hashes: set their fields in `model`.")
        self.bias = nn.Parameter(torch.zeros(self.counts_proj.out_features))
        del self.pooling, self.dense, self.out_proj

    def logits_of_states(self, hidden_states: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        """Nothing but a bias: token states are not read."""
        return self.bias


class CountsForSequenceClassification(SFTForSequenceClassification):
    """Counts of the runs of tokens, and of words, in texts."""

    config: SequenceCountsConfig
    auto_class_name = None
    head_class = CountsHead

    def __init__(self, config: SequenceCountsConfig) -> None:
        super().__init__(config)
        encoder: Any = NoEncoder()
        self.sft.encoder = encoder


class CountsForGraphClassification(SFTForGraphClassification):
    """Counts of the balls in graphs."""

    config: GraphBaselineConfig
    auto_class_name = None
    head_class = CountsHead

    def __init__(self, config: GraphBaselineConfig) -> None:
        super().__init__(config)
        encoder: Any = NoEncoder()
        self.sft.encoder = encoder
