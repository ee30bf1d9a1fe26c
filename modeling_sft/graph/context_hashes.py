"""Context hashes of graphs: which neighbourhood a node stands in, as Weisfeiler and Leman tell them apart."""

import torch
from torch import Tensor

from ..configuration_sft import SFTGraphConfig
from ..encoder.context_hashes import ContextHashes
from ..nn.hashing import mix
from .relation import GraphEdges


def _joined_columns(categories: Tensor, seed: int) -> Tensor:
    """One hash for all columns `(..., C)` of categories; the order of the columns counts."""
    joined = torch.full(categories.shape[:-1], seed, dtype=torch.long, device=categories.device)
    for column in categories.unbind(-1):
        joined = mix(mix(joined) + column)
    return joined


def graph_hashes(node_features: Tensor, mask: Tensor, edges: GraphEdges, config: SFTGraphConfig) -> ContextHashes:
    """Hashes of the balls around each node: sums over edges make them independent of order, in O(N + E).

    h_0(i) = mix(categories of i), h_{r+1}(i) = mix(h_r(i), sum over edges j -> i of mix(edge categories, h_r(j))).

    Args:
        node_features: `(B, N, C)`, categories in the first columns; numbers stay out.
        mask: `(B, N)` bool.
        edges: of the batch, with checked features.
        config: says which columns are categories, the largest radius and the seed.

    Returns:
        A kind for each radius, from 0; all balls are counted.
    """
    seed, nodes = config.context_hash_seed, len(config.node_vocab_sizes or ())
    source, target = edges.edge_index.unbind(1)
    columns = source.new_zeros(*source.shape, 0)
    if edges.edge_features is not None:
        columns = edges.edge_features[..., : len(config.edge_vocab_sizes or ())].long()
    edge = mix(_joined_columns(columns, seed + 1))
    ball = _joined_columns(node_features[..., :nodes].long(), seed)
    balls = [ball]
    for _ in range(config.num_context_kinds - 1):
        messages = mix(edge + ball.gather(1, source)).masked_fill(~edges.edge_mask, 0)
        ball = mix(mix(ball, seed + 2) + torch.zeros_like(ball).scatter_add(1, target, messages))
        balls.append(ball)
    ids = torch.stack(balls, dim=-1)
    present = mask[..., None].expand_as(ids)
    return ContextHashes(ids, present, present)
