"""Context hashes: states of the neighbourhoods that tokens stand in, and their counts (docs/design.md, section 6).

A modality finds the ids (see its `context_hashes`); what is done with them is the same for all.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configuration_sft import SFTContextConfig
from ..nn.hashing import buckets, occurrences, with_rank
from ..nn.initialization import unit_variance, unit_variance_linear
from ..nn.norms import NORMS


class ContextHashes(NamedTuple):
    """Ids of the neighbourhoods of tokens, one for each kind of neighbourhood.

    Attributes:
        ids: `(B, N, kinds)` long.
        present: `(B, N, kinds)` bool, `False` in padding and where a kind has no id, as words at spaces.
        counted: `(B, N, kinds)` bool, those of the present that a count of neighbourhoods counts, as whole words.
    """

    ids: Tensor
    present: Tensor
    counted: Tensor


def _table_rows(ids: Tensor, num_buckets: int) -> Tensor:
    """The rows of a table for ids `(B, N, kinds)`, each kind having its own."""
    return buckets(ids, num_buckets) + num_buckets * torch.arange(ids.shape[-1], device=ids.device)


class SFTContextEmbedding(nn.Module):
    """A state for each token from the ids of its neighbourhoods: narrow tables, their sum, then a linear map.

    Args:
        config: gives the kinds, the sizes, and the rate at which ids are left out in training.
    """

    def __init__(self, config: SFTContextConfig):
        super().__init__()
        kinds = config.num_context_kinds
        self.num_buckets, self.dropout = config.context_hash_buckets, config.context_hash_dropout
        self.scale = kinds**-0.5
        self.table = unit_variance(nn.Embedding(kinds * self.num_buckets, config.context_hash_dim))
        self.proj = unit_variance_linear(config.context_hash_dim, config.hidden_size, bias=False)

    def forward(self, hashes: ContextHashes) -> Tensor:
        """Embed the neighbourhoods of tokens: `(B, N, D)`, zeros where none is present."""
        ids, present, _ = hashes
        weights = F.dropout(present.to(self.table.weight.dtype), self.dropout, self.training) * self.scale
        rows = _table_rows(ids, self.num_buckets).flatten(0, 1)
        states = F.embedding_bag(rows, self.table.weight, mode="sum", per_sample_weights=weights.flatten(0, 1))
        return self.proj(states.unflatten(0, ids.shape[:2]))


class SFTContextCounts(nn.Module):
    """One vector for each row of a batch that says how often each neighbourhood stands in it.

    The first, second, third, fourth, sixth, eighth, twelfth ... occurrence of a neighbourhood in a row each add a row
    of a table: linear maps of the sum are then additive functions of logarithmic counts, step by step, as trees on
    counts are. With `norm_type` "batch", batch norm follows, which takes away what all rows have in common. Otherwise
    the sum is divided by the root of the number of its terms: a norm of the single row would take away how much speaks
    for an answer.

    Args:
        config: gives the kinds, the sizes, and the rate at which occurrences are left out in training.
    """

    def __init__(self, config: SFTContextConfig):
        super().__init__()
        rows, by_batch = config.num_context_kinds * config.context_hash_buckets, config.norm_type == "batch"
        self.num_buckets, self.dropout = config.context_hash_buckets, config.context_hash_dropout
        self.weight = nn.Parameter(torch.empty(rows, config.context_count_dim))
        self.norm = NORMS["batch"](config.context_count_dim, eps=config.norm_eps) if by_batch else None

    def forward(self, hashes: ContextHashes) -> Tensor:
        """Count the neighbourhoods of rows: `(B, context_count_dim)`."""
        ids, rank = occurrences(hashes.ids, hashes.counted)
        is_step = _is_step(rank).to(self.weight.dtype)
        weights = F.dropout(is_step, self.dropout, self.training).flatten()
        rows = _table_rows(with_rank(ids, rank), self.num_buckets)
        # Exporters take the number of rows that the function finds itself for a constant.
        starts = rows[0].numel() * torch.arange(rows.shape[0], device=rows.device)
        sums = F.embedding_bag(rows.flatten(), self.weight, starts, mode="sum", per_sample_weights=weights)
        if self.norm is None:
            return sums / is_step.sum((1, 2)).clamp(min=1)[:, None].sqrt()
        return self.norm(sums[:, None], torch.ones_like(sums[:, :1], dtype=torch.bool)).squeeze(1)


def context_tables(model: nn.Module) -> list[Tensor]:
    """The tables of a model, whose rows stand for hashes."""
    tables: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, SFTContextEmbedding):
            tables.append(module.table.weight)
        elif isinstance(module, SFTContextCounts):
            tables.append(module.weight)
    return tables


def _is_step(rank: Tensor) -> Tensor:
    """Whether a count is 2^k or 3 * 2^k: its steps, evenly spaced in the logarithm."""
    # Take the lowest bit that is set off: 2^k leaves 0, 3 * 2^k leaves twice what was taken.
    lowest = rank & -rank
    rest = rank - lowest
    return (rank > 0) & ((rest == 0) | (rest == 2 * lowest))
