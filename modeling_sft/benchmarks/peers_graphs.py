"""The suite `graphs`: PyTorch Geometric's GINE and GPS on batches of random graphs; SFT has no graph model yet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..optional import import_optional
from .cases import BenchmarkCase, BenchmarkSuite, Inputs, ModelSize, Shapes, Workload

NUM_CLASSES = 10


class GraphPeer(nn.Module):
    """A stack of GINE convolutions (arXiv 1905.12265), or of GPS layers (arXiv 2205.12454) around them."""

    def __init__(self, workload: Workload, with_attention: bool) -> None:
        super().__init__()
        library = import_optional("torch_geometric.nn", "benchmark")
        width, heads = workload.size.hidden_size, workload.size.num_attention_heads
        layers = [
            library.GINEConv(nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)))
            for _ in range(workload.size.num_hidden_layers)
        ]
        if with_attention:
            layers = [library.GPSConv(width, layer, heads=heads) for layer in layers]
        self.with_attention = with_attention
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in layers] if not with_attention else [])
        self.pool = library.global_mean_pool
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, node_states: Tensor, edge_index: Tensor, edge_states: Tensor, batch: Tensor) -> Tensor:
        """Logits `(B, classes)` of the graphs that `batch` assigns the nodes to."""
        states = node_states
        if self.with_attention:
            for layer in self.layers:
                states = layer(states, edge_index, batch, edge_attr=edge_states)
        else:
            for layer, norm in zip(self.layers, self.norms, strict=True):
                states = states + nn.functional.relu(norm(layer(states, edge_index, edge_states)))
        return self.head(self.pool(states, batch))


def build_gine(workload: Workload) -> nn.Module:
    """GINE with residual connections."""
    return GraphPeer(workload, with_attention=False)


def build_gps(workload: Workload) -> nn.Module:
    """GPS: GINE and attention among all nodes of a graph."""
    return GraphPeer(workload, with_attention=True)


def graph_inputs(workload: Workload) -> Inputs:
    """Rings with as many random chords as nodes, so that the mean degree is 4; states of nodes and edges."""
    generator, length, width = workload.generator(), workload.length, workload.size.hidden_size
    nodes = torch.arange(workload.batch_size * length)
    first = nodes - nodes % length
    ring = torch.stack([nodes, first + (nodes + 1) % length])
    chords = torch.stack([nodes, first + torch.randint(length, nodes.shape, generator=generator)])
    one_way = torch.cat([ring, chords], dim=1)
    edge_index = torch.cat([one_way, one_way.flip(0)], dim=1)
    inputs = {
        "node_states": torch.randn(len(nodes), width, generator=generator).to(workload.dtype),
        "edge_index": edge_index,
        "edge_states": torch.randn(edge_index.shape[1], width, generator=generator).to(workload.dtype),
        "batch": nodes // length,
    }
    return {name: tensor.to(workload.device) for name, tensor in inputs.items()}


def graph_shapes(workload: Workload) -> Shapes:
    """One row of logits per graph."""
    return ((workload.batch_size, NUM_CLASSES),)


GRAPHS = BenchmarkSuite(
    name="graphs",
    description="graph networks on batches of 32 random graphs: GINE and GPS",
    unit="nodes",
    size=ModelSize(hidden_size=96, num_hidden_layers=5),
    lengths=(150, 500),
    batch_size=lambda length: 32,
    cases={
        "gine": BenchmarkCase("GINE", build_gine, graph_shapes),
        "gps": BenchmarkCase("GPS", build_gps, graph_shapes),
    },
    default_models=("gine", "gps"),
    reference="gine",
    inputs=graph_inputs,
    warmup_length=64,
    note="SFT is not among them: its graph model does not exist yet.",
)
