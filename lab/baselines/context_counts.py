"""The readout of context hashes alone: what SFT's classifiers know without token states, layers and attention.

It is linear in the counts of neighbourhoods' vectors and their activations (docs/design.md, section 6).
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from modeling_sft.configuration_sft import SFTConfig
from modeling_sft.encoder.context_hashes import ContextHashes
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
        self.out_proj = nn.Linear(self.counts_proj.in_features, self.counts_proj.out_features)
        del self.pooling, self.dense, self.counts_proj

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor,
        context_hashes: ContextHashes | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Logits `(B, num_labels)` from the neighbourhoods alone."""
        return self.out_proj(self.dropout(self.count_states(context_hashes)))


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
