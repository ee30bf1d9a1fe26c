"""The relation of sequences: features of the offset between two positions, projected once and then looked up.

There are about as many different offsets as positions, so features and projections are computed per offset, in O(N),
and each pair of a query and a sampled token reads its entry (docs/design.md, section 5).
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from ..attention.relation import IDENTITY_OFFSET, Effect, Gradient, SFTRelation, effect_of, effect_with_gradient
from ..configuration_sft import SFTConfig
from ..sampling.sample import Sample

# Fourier features of the offset have the periods 4, 16, ..., 4**8 tokens.
NUM_PERIODS = 8
NUM_OFFSET_FEATURES = 3 + 2 * NUM_PERIODS
# So far below all positions that an offset to it leads to the last entry of the tables.
NOWHERE = -(2**40)


class SequencePositions(NamedTuple):
    """What the relation of a sequence is computed from.

    Attributes:
        positions: `(B, N)` long.
        span: no two positions of a row differ by more.
    """

    positions: Tensor
    span: int


class PreparedOffsets(NamedTuple):
    """The relation bound to a sample: tables over offsets, and the positions from which tiles compute offsets.

    Attributes:
        scale_table: `(H, T)`, T = 2 `span` + 2: a . phi of each offset from -`span` on, and last of extra tokens.
        bias_table: `(H, T)`, b . phi likewise.
        query_positions: `(B, N)` long.
        key_positions: `(B, S, K)` long, `NOWHERE` for extra tokens.
        partner_positions: likewise of the partners, where relation features are mixed; else `None`.
        mixing_weights: `(B, S, K)`, weight of the sampled token in its mixture; `None` without partners.
    """

    scale_table: Tensor
    bias_table: Tensor
    query_positions: Tensor
    key_positions: Tensor
    partner_positions: Tensor | None
    mixing_weights: Tensor | None

    def rows(self, rows: slice) -> "PreparedOffsets":
        """The same for some rows of the batch."""
        by_row: Any = (None if tensor is None else tensor[rows] for tensor in self[2:])
        return PreparedOffsets(self.scale_table, self.bias_table, *by_row)

    def queries(self, queries: slice) -> "PreparedOffsets":
        """The same for some queries."""
        return self._replace(query_positions=self.query_positions[:, queries])

    def with_fixed_sizes(self) -> "PreparedOffsets":
        """The same: its sizes are fixed."""
        return self

    def effect(self) -> Effect:
        """Factor and summand of the scores, each `(B, H, N, K)`."""
        scale, bias = self._look_up(self.key_positions)
        if self.partner_positions is not None and self.mixing_weights is not None:
            other_scale, other_bias = self._look_up(self.partner_positions)
            share = self.mixing_weights[:, :, None].to(scale.dtype)
            scale, bias = torch.lerp(other_scale, scale, share), torch.lerp(other_bias, bias, share)
        return effect_of(scale, bias)

    def kernel_operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both tables, scales shifted as the softplus wants them, and the positions of queries and sampled tokens.

        Raises:
            ValueError: features of pairs are mixed.
        """
        if self.mixing_weights is not None:
            raise ValueError('`sft_triton` has no relation of mixed pairs (`sampling_estimator="soft"`).')
        return (
            torch.stack([self.scale_table + IDENTITY_OFFSET, self.bias_table]),
            self.query_positions,
            self.key_positions,
        )

    def with_gradient(self, needs_grad: tuple[bool, ...]) -> tuple[Effect, Gradient]:
        """See [`effect_with_gradient`]."""
        return effect_with_gradient(self, needs_grad)

    def _look_up(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Entries `(B, H, N, K)` of both tables for all queries and the tokens at positions `(B, S, K)`."""
        last = self.scale_table.shape[1] - 1
        offset = self.query_positions[:, None, :, None] - positions[:, :, None]
        entries = (offset + (last - 1) // 2).clamp(max=last)
        if entries.shape[1] == 1:
            scale, bias = self.scale_table[:, entries[:, 0]], self.bias_table[:, entries[:, 0]]
            return scale.transpose(0, 1), bias.transpose(0, 1)
        head = torch.arange(len(self.scale_table), device=entries.device)[:, None, None]
        return self.scale_table[head, entries], self.bias_table[head, entries]


def offset_features(offset: Tensor, dtype: torch.dtype) -> Tensor:
    """Phi of long offsets `(T,)`, `(T, 19)`: 1, sign, log(1 + |o|), cosines and sines of eight periods."""
    periods = 4 ** torch.arange(1, NUM_PERIODS + 1, device=offset.device)
    # Whole periods go before the rounding to floats: those of far offsets would drown the phase.
    angle = 2 * math.pi * (offset[:, None].remainder(periods).to(dtype) / periods)
    offset = offset.to(dtype)
    plain = torch.stack([torch.ones_like(offset), offset.sign(), offset.abs().log1p()], dim=1)
    return torch.cat([plain, angle.cos(), angle.sin()], dim=1)


class SFTSequenceRelation(SFTRelation):
    """Scales and shifts scores by features of the offset from the sampled token to the query."""

    def __init__(self, config: SFTConfig):
        super().__init__(config, NUM_OFFSET_FEATURES)

    def prepare(self, sequence: SequencePositions, sample: Sample) -> PreparedOffsets:
        """Bind the relation to a sample: tables over all offsets, and the positions of queries and sampled tokens."""
        positions, span = sequence
        with maybe_autocast(positions.device.type, enabled=False):
            dtype = torch.promote_types(self.scale_weight.dtype, torch.float32)
            features = offset_features(torch.arange(-span, span + 1, device=positions.device), dtype)
            # Extra tokens have no offset: all their features are 0.
            features = F.pad(features, (0, 0, 0, 1))
            scale_table = self.scale_weight.to(dtype) @ features.mT
            bias_table = self.bias_weight.to(dtype) @ features.mT
        partners = weights = None
        if self.mixes_pairs and sample.partners is not None:
            partners, weights = _positions_of(sample.partners, positions), sample.weights
        keys = _positions_of(sample.indices, positions)
        return PreparedOffsets(scale_table, bias_table, positions, keys, partners, weights)


def _positions_of(indices: Tensor, positions: Tensor) -> Tensor:
    """Positions of the tokens at indices `(B, S, K)`; in unused slots, that of the first token."""
    length = positions.shape[1]
    found = positions.gather(1, indices.clamp(0, length - 1).flatten(1)).view_as(indices)
    return torch.where(indices < length, found, NOWHERE)
