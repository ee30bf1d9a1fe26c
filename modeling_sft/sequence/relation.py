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

from ..attention.relation import IDENTITY_OFFSET, Effect, Gradient, SFTRelation, effect_gradients, effect_of
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
        looked_up = [value for places in self._places() for value in self._look_up(places)]
        return effect_of(*_mixed(looked_up, self.mixing_weights))

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
        """`effect` without a graph, and the function that adds its gradients to those of these tensors.

        The gradients of looked up entries go straight to their places. A gradient of the tables for every tile would
        make the cost quadratic in the length.

        Args:
            needs_grad: which of the tensors get a gradient; the function leaves the others alone.
        """
        share = self.mixing_weights
        if share is not None:
            share = share.detach().requires_grad_(needs_grad[5])
        looked_up, columns = [], []
        for places in self._places():
            for number, value in enumerate(self._look_up(places)):
                looked_up.append(value.detach().requires_grad_(needs_grad[number]))
                columns.append((number, places))
        with torch.set_grad_enabled(any(needs_grad)):
            effect = effect_of(*_mixed(looked_up, share))

        def gradient(grad_scale: Tensor, grad_bias: Tensor, target: PreparedOffsets) -> None:
            leaves = [*looked_up, *(() if share is None else (share,))]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            found = iter(effect_gradients(effect, wanted, grad_scale, grad_bias))
            for leaf, (number, places) in zip(looked_up, columns, strict=True):
                if leaf.requires_grad:
                    _add_at(target.bias_table if number else target.scale_table, places, next(found))
            if share is not None and target.mixing_weights is not None and share.requires_grad:
                target.mixing_weights.add_(next(found))

        return Effect(effect.scale.detach(), effect.bias.detach()), gradient

    def _places(self) -> list[Tensor]:
        """Columns of the tables `(B, S, N, K)` of queries and sampled tokens, then of the partners if there are."""
        last = self.scale_table.shape[1] - 1
        return [
            (self.query_positions[:, None, :, None] - positions[:, :, None] + (last - 1) // 2).clamp(max=last)
            for positions in (self.key_positions, self.partner_positions)
            if positions is not None
        ]

    def _look_up(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Entries `(B, H, N, K)` of both tables at places `(B, S, N, K)`."""
        if places.shape[1] == 1:
            scale, bias = self.scale_table[:, places[:, 0]], self.bias_table[:, places[:, 0]]
            return scale.transpose(0, 1), bias.transpose(0, 1)
        head = torch.arange(len(self.scale_table), device=places.device)[:, None, None]
        return self.scale_table[head, places], self.bias_table[head, places]


def _mixed(looked_up: list[Tensor], share: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scale and bias of the sampled tokens, mixed with those of their partners if there are weights `(B, S, K)`."""
    scale, bias, *other = looked_up
    if share is None or not other:
        return scale, bias
    share = share[:, :, None].to(scale.dtype)
    return torch.lerp(other[0], scale, share), torch.lerp(other[1], bias, share)


def _add_at(table: Tensor, places: Tensor, values: Tensor) -> None:
    """Add values `(B, H, N, K)` to the columns of a table `(H, T)` at places `(B, S, N, K)`."""
    values = values.transpose(0, 1).flatten(1)
    places = places.transpose(0, 1).flatten(1).expand_as(values)
    if table.device.type == "cpu":
        table.scatter_add_(1, places, values)
    else:
        # Elsewhere this order of the sums would change from run to run.
        head = torch.arange(len(table), device=table.device)[:, None]
        table.index_put_((head, places), values, accumulate=True)


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
