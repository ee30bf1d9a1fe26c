"""Pre-training that reaches the readout: which neighbourhoods a row has (docs/design.md, section 6).

The targets cost nothing, and the readout learns which neighbourhoods go together before it sees a label.
"""

import torch
from torch import Tensor

from ..configuration_sft import SFTContextConfig
from ..nn.hashing import buckets, occurrences, with_rank
from .context_hashes import ContextHashes
from .heads import SFTClassificationHead

NUM_TARGETS = 2**13
"""Neighbourhoods are hashed into so many targets."""


class SFTPreTrainingHead(SFTClassificationHead):
    """Predicts the neighbourhoods of rows twice: from token states, and from the counts that dropout leaves.

    All its layers but the last ones are those of [`SFTClassificationHead`], which starts from them in fine-tuning.

    Raises:
        ValueError: the configuration counts no neighbourhoods.
    """

    def __init__(self, config: SFTContextConfig):
        if not config.num_context_counts:
            raise ValueError(
                "Pre-training predicts neighbourhoods: set `context_hash_sizes`, and `context_count_dim` above 0."
            )
        super().__init__(config, num_outputs=NUM_TARGETS)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor,
        context_hashes: ContextHashes | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of each row's neighbourhoods, the mean of both predictions: `(B,)` float32 or finer."""
        # A backbone whose configuration counts neighbourhoods always finds them.
        assert context_hashes is not None
        targets = neighbourhood_targets(context_hashes)
        logits = torch.stack([self.logits_of_states(hidden_states, mask), self.logits_of_counts(context_hashes)])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return -(targets * logits.log_softmax(-1)).sum(-1).mean(0)


def neighbourhood_targets(context_hashes: ContextHashes) -> Tensor:
    """Shares of the distinct neighbourhoods of rows, `(B, NUM_TARGETS)` float32; zeros for a row without any."""
    ids, rank = occurrences(context_hashes.ids, context_hashes.counted)
    # Two kinds may have the same id, as the first token and the run that ends there.
    kinds = 1 + torch.arange(ids.shape[-1], device=ids.device).expand_as(ids)
    found = buckets(with_rank(ids, kinds), NUM_TARGETS).flatten(1)
    first = (rank == 1).flatten(1).float()
    targets = torch.zeros(ids.shape[0], NUM_TARGETS, device=ids.device).scatter_add(1, found, first)
    return targets / first.sum(1, keepdim=True).clamp(min=1)
