"""The suite `graphs`: SFT, and PyTorch Geometric's GINE and GPS, on batches of random graphs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modeling_sft.configuration_sft import SFTGraphConfig
from modeling_sft.graph.modeling_sft_graph import SFTForGraphClassification

from ..baselines.graphs import GINEStack, GPSStack
from .cases import BenchmarkCase, BenchmarkSuite, Inputs, ModelSize, Shapes, Workload
from .sft_modules import sft_fields

NUM_CLASSES = 10
# The atoms and bonds of OGB's molecules have as many features.
NUM_NODE_FEATURES, NUM_EDGE_FEATURES = 9, 3


def sft_graph_config(size: ModelSize, **extra: Any) -> SFTGraphConfig:
    """A configuration for graphs of the given sizes, with relation and messages along the edges."""
    fields: dict[str, Any] = {"num_node_features": NUM_NODE_FEATURES, "num_edge_features": NUM_EDGE_FEATURES}
    return SFTGraphConfig(**sft_fields(size), **fields, **extra)


class SFTGraphClassifier(nn.Module):
    """The graph classifier of SFT."""

    def __init__(self, workload: Workload, backend: str) -> None:
        super().__init__()
        self.model = SFTForGraphClassification(sft_graph_config(workload.size, num_labels=NUM_CLASSES))
        self.model.set_attn_implementation(backend)

    def forward(self, node_features: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        """Logits `(B, classes)` of graphs of N nodes and E edges."""
        return self.model(node_features, edge_index, edge_features).logits


class FlatGraphs(nn.Module):
    """A stack of PyTorch Geometric's layers on graphs of equal size, whose flat layout is a view of the batch."""

    def __init__(self, workload: Workload, stack: type[nn.Module]) -> None:
        super().__init__()
        config = sft_graph_config(workload.size)
        self.node_proj = nn.Linear(NUM_NODE_FEATURES, config.hidden_size)
        self.edge_proj = nn.Linear(NUM_EDGE_FEATURES, config.hidden_size)
        self.stack = stack(config)

    def forward(self, node_features: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        """States `(B, N, D)` of the nodes of all graphs."""
        batch, length, _ = node_features.shape
        numbers = torch.arange(batch, device=edge_index.device)
        flat_index = (edge_index + length * numbers[:, None, None]).transpose(0, 1).flatten(1)
        states = self.node_proj(node_features.flatten(0, 1))
        edge_states = self.edge_proj(edge_features.flatten(0, 1))
        states = self.stack(states, flat_index, edge_states, numbers.repeat_interleave(length))
        return states.unflatten(0, (batch, length))


class GraphPeer(nn.Module):
    """A classifier around [`FlatGraphs`], by the mean over nodes."""

    def __init__(self, workload: Workload, stack: type[nn.Module]) -> None:
        super().__init__()
        self.encoder = FlatGraphs(workload, stack)
        self.head = nn.Linear(workload.size.hidden_size, NUM_CLASSES)

    def forward(self, node_features: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        """Logits `(B, classes)`."""
        return self.head(self.encoder(node_features, edge_index, edge_features).mean(1))


def random_graphs(workload: Workload, chords: int) -> Inputs:
    """Rings with `chords` random chords per node, every edge in both directions: 2 + 2 * `chords` edges per node.

    Returns:
        `node_features` (B, N, 9), `edge_index` (B, 2, E) long and `edge_features` (B, E, 3).
    """
    generator, length, batch = workload.generator(), workload.length, workload.batch_size
    nodes = torch.arange(length)
    ring = torch.stack([nodes, (nodes + 1) % length]).expand(batch, -1, -1)
    ends = torch.randint(length, (batch, chords * length), generator=generator)
    one_way = torch.cat([ring, torch.stack([nodes.repeat(chords).expand(batch, -1), ends], dim=1)], dim=2)
    edge_index = torch.cat([one_way, one_way.flip(1)], dim=2)
    inputs = {
        "node_features": torch.randn(batch, length, NUM_NODE_FEATURES, generator=generator).to(workload.dtype),
        "edge_index": edge_index,
        "edge_features": torch.randn(batch, edge_index.shape[2], NUM_EDGE_FEATURES, generator=generator).to(
            workload.dtype
        ),
    }
    return {name: tensor.to(workload.device) for name, tensor in inputs.items()}


def graph_shapes(workload: Workload) -> Shapes:
    """One row of logits per graph."""
    return ((workload.batch_size, NUM_CLASSES),)


def _sft(label: str, backend: str) -> BenchmarkCase:
    return BenchmarkCase(label, partial(SFTGraphClassifier, backend=backend), graph_shapes, is_sft=True)


GRAPHS = BenchmarkSuite(
    name="graphs",
    description="graph classifiers on batches of 32 random graphs of mean degree 4: SFT, GINE and GPS",
    unit="nodes",
    size=ModelSize(hidden_size=96, num_hidden_layers=5, intermediate_size=192, num_sampled_tokens=32),
    lengths=(150, 500),
    batch_size=lambda length: 32,
    cases={
        "sft": _sft("SFT", "sft_fused"),
        "sft_eager": _sft("SFT (eager)", "eager"),
        "gine": BenchmarkCase("GINE", partial(GraphPeer, stack=GINEStack), graph_shapes),
        "gps": BenchmarkCase("GPS", partial(GraphPeer, stack=GPSStack), graph_shapes),
    },
    default_models=("sft", "gine", "gps"),
    reference="sft",
    inputs=partial(random_graphs, chords=1),
    warmup_length=64,
    note="GINE and GPS get their flat layout for nothing, because the graphs have equal sizes.",
)
