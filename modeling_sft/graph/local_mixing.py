"""Local mixing of graphs: messages along the edges, beside the attention (docs/design.md, section 5)."""

import torch
from torch import Tensor, nn

from ..configuration_sft import SFTGraphConfig
from ..nn.initialization import unit_variance_linear
from .features import SFTFeatureEmbedding
from .relation import GraphEdges


class SFTMessagePassing(nn.Module):
    """W2 gelu(W1 (h_i + sum_j relu(h_j + e_ji))) over the edges j -> i, e embedding the edge's features.

    After GINE (arXiv 1905.12265) with the weight of a node's own state fixed (arXiv 1810.00826, GIN-0).
    """

    parallel = True

    def __init__(self, config: SFTGraphConfig):
        super().__init__()
        width = config.hidden_size
        self.edges = None
        if config.has_edge_features:
            self.edges = SFTFeatureEmbedding(config.edge_vocab_sizes, config.num_edge_features, width)
        self.dense = unit_variance_linear(width, width)
        self.activation = nn.GELU()
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor, mask: Tensor, edges: GraphEdges) -> Tensor:
        """Pass messages between the nodes `(B, N, D)` along the edges."""
        edge_index, edge_mask, edge_features, length = edges
        nodes = hidden_states.flatten(0, 1)
        first = torch.arange(edge_index.shape[0], device=edge_index.device)[:, None] * length
        source, target = (index + first for index in edge_index.unbind(1))
        # Padded edges send to a row behind the last node.
        target = torch.where(edge_mask, target, nodes.shape[0]).flatten()
        messages = nodes.index_select(0, source.flatten())
        if self.edges is not None and edge_features is not None:
            messages = messages + self.edges(edge_features).flatten(0, 1)
        messages = nn.functional.relu_(messages)
        sums = messages.new_zeros(nodes.shape[0] + 1, messages.shape[1]).index_add(0, target, messages)[:-1]
        return self.out_proj(self.activation(self.dense((nodes + sums).view_as(hidden_states))))
