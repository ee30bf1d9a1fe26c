"""The suite `large_graphs`: one pass over one large graph, with a state for every node."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from modeling_sft.graph.modeling_sft_graph import SFTGraphModel

from ..baselines.graphs import GINEStack, GPSStack
from .cases import BenchmarkCase, BenchmarkSuite, ModelSize, Workload
from .peers_graphs import FlatGraphs, random_graphs, sft_graph_config
from .peers_tokens import token_shapes


class SFTLargeGraph(nn.Module):
    """The graph backbone of SFT, which gives a state for every node, as node classification needs it."""

    def __init__(self, workload: Workload, backend: str) -> None:
        super().__init__()
        self.model = SFTGraphModel(sft_graph_config(workload.size))
        self.model.set_attn_implementation(backend)

    def forward(self, node_features: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        """States `(B, N, D)`."""
        return self.model(node_features, edge_index, edge_features).last_hidden_state


LARGE_GRAPHS = BenchmarkSuite(
    name="large_graphs",
    description="the SFT backbone on one graph of up to 200,000 nodes with 10 edges per node, and GINE's layers",
    unit="nodes",
    size=ModelSize(hidden_size=64, num_hidden_layers=4, intermediate_size=128, num_sampled_tokens=128),
    lengths=(25_000, 50_000, 100_000, 200_000),
    batch_size=lambda length: 1,
    cases={
        "sft": BenchmarkCase("SFT", partial(SFTLargeGraph, backend="sft_fused"), token_shapes, is_sft=True),
        "gine": BenchmarkCase("GINE layers", partial(FlatGraphs, stack=GINEStack), token_shapes),
        "gps": BenchmarkCase("GPS layers", partial(FlatGraphs, stack=GPSStack), token_shapes),
    },
    default_models=("sft", "gine"),
    reference="sft",
    inputs=partial(random_graphs, chords=4),
    note="The attention of GPS takes time and memory in N squared: it runs only when asked for.",
)
