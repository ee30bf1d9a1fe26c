"""The relation of graphs: features of the edges from sampled nodes to queries, scattered into the scores.

Only edges from sampled nodes are kept, so the cost is O(E + N K). Edges that occur several times add up
(docs/design.md, section 5).
"""

import itertools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from ..attention.relation import Effect, Gradient, SFTRelation, effect_of, effect_with_gradient
from ..configuration_sft import SFTGraphConfig
from ..nn.checks import is_traced
from ..sampling.sample import Sample
from .features import look_up


class GraphEdges(NamedTuple):
    """What relation and local mixing of a graph are computed from.

    Attributes:
        edge_index: `(B, 2, E)` long, source and target of each edge; 0 in unused places.
        edge_mask: `(B, E)` bool, `True` for real edges.
        edge_features: `(B, E, C)`, categories first, then numbers, 0 in unused places; or `None`.
        num_nodes: N, padding included.
    """

    edge_index: Tensor
    edge_mask: Tensor
    edge_features: Tensor | None
    num_nodes: int


class PreparedEdges(NamedTuple):
    """The relation bound to a sample: one entry for each of the M edges from sampled nodes, in order of their queries.

    Attributes:
        scale: `(M, H / S)`, a . phi of the edge.
        bias: `(M, H / S)`, b . phi of the edge.
        query: `(M,)` long, row of the batch times N plus target, ascending.
        sample: `(M,)` long, the sample that the source is in.
        slot: `(M,)` long, the slot of the source in that sample.
        first: `(B N + 1,)` long, the first entry of each query.
        extent: `(7,)` long on the CPU: first row, rows, first query and queries of the part at hand; N, S and K.
    """

    scale: Tensor
    bias: Tensor
    query: Tensor
    sample: Tensor
    slot: Tensor
    first: Tensor
    extent: Tensor

    def rows(self, rows: slice) -> "PreparedEdges":
        """The same for some rows of the batch; take these before queries."""
        first_row, count, *rest = self.extent.tolist()
        start, stop, _ = rows.indices(count)
        length = rest[2]
        return self._entries(
            slice(*self.first[[(first_row + start) * length, (first_row + stop) * length]].tolist()),
            [first_row + start, stop - start, *rest],
        )

    def queries(self, queries: slice) -> "PreparedEdges":
        """The same for some queries. Of a single row, or all of them, the entries are views."""
        first_row, rows, _, count, length, *rest = self.extent.tolist()
        start, stop, _ = queries.indices(count)
        extent = [first_row, rows, start, stop - start, length, *rest]
        if (start, stop) == (0, count):
            return self
        if rows == 1:
            origin = int(self.first[first_row * length])
            ends = self.first[[first_row * length + start, first_row * length + stop]].tolist()
            return self._entries(slice(ends[0] - origin, ends[1] - origin), extent)
        column = self.query % length
        return self._entries((column >= start) & (column < stop), extent)

    def with_fixed_sizes(self) -> Effect:
        """The effect on all pairs: the number of entries differs from part to part."""
        return self.effect()

    def _entries(self, entries: Any, extent: list[int]) -> "PreparedEdges":
        scale, bias, query, sample, slot = (tensor[entries] for tensor in self[:5])
        return PreparedEdges(scale, bias, query, sample, slot, self.first, torch.tensor(extent))

    def effect(self) -> Effect:
        """Factor and summand of the scores, each `(B, H, N, K)`."""
        first_row, rows, start, count, length, samples, k = self.extent.tolist()
        where = (self.query // length - first_row, self.sample, self.query % length - start, self.slot)
        return _scattered(where, self.scale, self.bias, (rows, samples, count, k))

    def kernel_operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """None: there are no kernels for edges."""
        raise ValueError("`sft_triton` has no relation of graphs: set `relation` to False.")

    def with_gradient(self, needs_grad: tuple[bool, ...]) -> tuple[Effect, Gradient]:
        """See [`effect_with_gradient`]."""
        return effect_with_gradient(self, needs_grad)


class SFTGraphRelation(SFTRelation):
    """Scales and shifts scores by the edges from the sampled node to the query.

    phi of an edge is 1, for its existence, one-hot categories, and numbers.
    """

    has_kernels = False

    def __init__(self, config: SFTGraphConfig):
        sizes = list(config.edge_vocab_sizes or ())
        super().__init__(config, 1 + sum(sizes) + config.num_edge_features)
        self.num_samples = config.num_samples
        self.num_categories, self.num_numbers = len(sizes), config.num_edge_features
        self.starts = list(itertools.accumulate(sizes[:-1], initial=0))

    def prepare(self, edges: GraphEdges, sample: Sample) -> PreparedEdges | Effect:
        """Bind the relation to a sample: find the slots of sampled sources, and project the edges that lead from them.

        Traced code has no tensors whose size depends on values: there the effect is computed for all pairs at once.
        """
        scale, bias = self._project(edges)
        parts: list[tuple[Tensor, Tensor | None]] = [(sample.indices, None)]
        if self.mixes_pairs and sample.partners is not None and sample.weights is not None:
            parts = [(sample.indices, sample.weights), (sample.partners, 1 - sample.weights)]
        shape = (scale.shape[0], self.num_samples, edges.num_nodes, sample.indices.shape[-1])
        if is_traced():
            return _dense_effect(parts, edges, scale, bias, shape)
        return _sparse_entries(parts, edges, scale, bias, shape)

    def _project(self, edges: GraphEdges) -> tuple[Tensor, Tensor]:
        """A . phi and b . phi of every edge, each `(B, E, S, H / S)`."""
        features = edges.edge_features
        with maybe_autocast(edges.edge_index.device.type, enabled=False):
            dtype = torch.promote_types(self.scale_weight.dtype, torch.float32)
            weight = torch.cat([self.scale_weight, self.bias_weight]).to(dtype)
            exists, categories, numbers = weight.split(
                [1, weight.shape[1] - 1 - self.num_numbers, self.num_numbers], 1
            )
            values = exists[:, 0].expand(*edges.edge_mask.shape, -1)
            if features is not None and self.num_categories:
                values = values + look_up(categories.mT, features[..., : self.num_categories], self.starts)
            if features is not None and self.num_numbers:
                values = values + features[..., self.num_categories :].to(dtype) @ numbers.mT
        scale, bias = values.chunk(2, dim=-1)
        return scale.unflatten(-1, (self.num_samples, -1)), bias.unflatten(-1, (self.num_samples, -1))


def _sparse_entries(
    parts: list[tuple[Tensor, Tensor | None]], edges: GraphEdges, scale: Tensor, bias: Tensor, shape: tuple[int, ...]
) -> PreparedEdges:
    batch, samples, length, k = shape
    target = edges.edge_index[:, 1]
    columns: list[list[Tensor]] = []
    for indices, weights in parts:
        slot = _slots_of_sources(indices, edges)
        row, which, edge = (slot >= 0).nonzero(as_tuple=True)
        found = slot[row, which, edge]
        values = [scale[row, edge, which], bias[row, edge, which]]
        if weights is not None:
            share = weights[row, which, found].to(scale.dtype)[:, None]
            values = [value * share for value in values]
        columns.append([*values, row * length + target[row, edge], which, found])
    scale, bias, query, which, found = (torch.cat(column) for column in zip(*columns, strict=True))
    order = query.argsort(stable=True)
    query = query[order]
    first = torch.searchsorted(query, torch.arange(batch * length + 1, device=query.device))
    extent = torch.tensor([0, batch, 0, length, length, samples, k])
    return PreparedEdges(scale[order], bias[order], query, which[order], found[order], first, extent)


def _dense_effect(
    parts: list[tuple[Tensor, Tensor | None]], edges: GraphEdges, scale: Tensor, bias: Tensor, shape: tuple[int, ...]
) -> Effect:
    batch, samples, length, k = shape
    row = torch.arange(batch, device=scale.device)[:, None, None]
    which = torch.arange(samples, device=scale.device)[None, :, None]
    target, scale, bias = edges.edge_index[:, 1, None], scale.transpose(1, 2), bias.transpose(1, 2)
    wheres, scales, biases = [], [], []
    for indices, weights in parts:
        slot = _slots_of_sources(indices, edges)
        # Edges from elsewhere go to a slot behind the last.
        slot = torch.where(slot >= 0, slot, k)
        share: Any = 1.0
        if weights is not None:
            share = F.pad(weights, (0, 1)).to(scale.dtype).gather(2, slot)[..., None]
        wheres.append(torch.broadcast_tensors(row, which, target, slot))
        scales.append(scale * share)
        biases.append(bias * share)
    where = tuple(torch.cat(column, dim=2) for column in zip(*wheres, strict=True))
    effect = _scattered(where, torch.cat(scales, 2), torch.cat(biases, 2), (batch, samples, length, k + 1))
    return Effect(effect[0][..., :k], effect[1][..., :k])


def _scattered(where: tuple[Tensor, ...], scale: Tensor, bias: Tensor, shape: tuple[int, ...]) -> Effect:
    """The effect on the scores `(B, H, N, K)` of the sums of entries at places `(b, s, n, k)`."""
    # Heads come last while scattering: one entry then writes neighbouring numbers.
    shape = (*shape, scale.shape[-1])
    a_phi, b_phi = (
        entries.new_zeros(shape).index_put(where, entries, accumulate=True).permute(0, 1, 4, 2, 3).flatten(1, 2)
        for entries in (scale, bias)
    )
    return effect_of(a_phi, b_phi)


def _slots_of_sources(indices: Tensor, edges: GraphEdges) -> Tensor:
    """The slots that the sources of edges have in samples `(B, S, K)`: `(B, S, E)` long, -1 for none."""
    batch, samples, k = indices.shape
    length = edges.num_nodes
    # Unused slots and extra tokens write behind the nodes.
    places = torch.where((indices >= 0) & (indices < length), indices, length)
    numbers = torch.arange(k, device=indices.device).expand_as(places)
    slots = indices.new_full((batch, samples, length + 1), -1).scatter(2, places, numbers)
    # Sources of padded edges lie there, too.
    slots[..., -1] = -1
    sources = torch.where(edges.edge_mask, edges.edge_index[:, 0], length)
    return slots.gather(2, sources[:, None].expand(-1, samples, -1))
