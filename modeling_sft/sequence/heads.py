"""Readouts of sequences alone: masked tokens, and pairs of sequences."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from ..configuration_sft import SFTConfig
from ..encoder.heads import SFTClassificationHead
from ..nn.checks import check_shape, resolve_mask
from ..nn.initialization import unit_variance_linear


class SFTMaskedLMHead(nn.Module):
    """Logits over the vocabulary: linear, activation, norm, then the transposed token embeddings.

    States are scaled by `hidden_size**-0.5`, because token embeddings start with unit variance.
    """

    def __init__(self, config: SFTConfig):
        super().__init__()
        self.dense = unit_variance_linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.scale = config.hidden_size**-0.5

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map token states `(B, N, D)` to logits `(B, N, vocab_size)`."""
        return self.decoder(self.norm(self.activation(self.dense(hidden_states))) * self.scale)


def join_pairs(
    input_ids: Tensor, pair_input_ids: Tensor, attention_mask: Tensor | None, pair_attention_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One batch of the two sequences of each pair, one behind the other.

    Args:
        input_ids: `(B, N)` long.
        pair_input_ids: `(B, M)` long.
        attention_mask, pair_attention_mask: their masks, or `None`.

    Returns:
        Ids and bool mask, `(2 B, max(N, M))` each.

    Raises:
        ValueError: shapes or masks that do not fit.
    """
    for name, ids in (("input_ids", input_ids), ("pair_input_ids", pair_input_ids)):
        check_shape(name, ids, (len(input_ids), None), "(pairs, tokens)")
    masks = resolve_mask(attention_mask, input_ids), resolve_mask(pair_attention_mask, pair_input_ids)
    length = max(input_ids.shape[1], pair_input_ids.shape[1])

    def join(*parts: Tensor) -> Tensor:
        return torch.stack([F.pad(part, (0, length - part.shape[1])) for part in parts], dim=1).flatten(0, 1)

    return join(input_ids, pair_input_ids), join(*masks)


class SFTPairClassificationHead(SFTClassificationHead):
    """Classifies two rows u and v, pooled each by itself, from u, v, their product and their difference.

    Its inputs are those of `2 B` rows, as [`join_pairs`] orders them, its logits `(B, num_labels)`.
    """

    def __init__(self, config: SFTConfig):
        super().__init__(config, num_vectors=4)

    def _per_row(self, vectors: Tensor) -> Tensor:
        first, second = vectors.unflatten(0, (-1, 2)).unbind(1)
        return torch.cat([first, second, first * second, first - second], dim=-1)
