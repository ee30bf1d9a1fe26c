"""Random graphs as model inputs, padded with garbage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Graph = dict[str, Tensor]
Batch = dict[str, Tensor]

NODE_CATEGORIES, EDGE_CATEGORIES = (5, 3), (4, 3)
BY_EDGE = ("edge_index", "edge_features")


def random_graph(size: int, seed: int, edges: int | None = None) -> Graph:
    """One graph of `size` nodes: random directed edges, self-loops and repetitions among them, no batch dimension."""
    generator = torch.Generator().manual_seed(seed)
    edges = 2 * size if edges is None else edges

    def categories(count: int, sizes: Sequence[int]) -> Tensor:
        return torch.stack([torch.randint(0, high, (count,), generator=generator) for high in sizes], dim=-1)

    numbers = torch.randn(size, 5, generator=generator, dtype=torch.float64)
    return {
        "node_features": torch.cat([categories(size, NODE_CATEGORIES), numbers[:, :2]], dim=1),
        "node_encodings": numbers[:, 2:],
        "edge_index": torch.randint(0, size, (2, edges), generator=generator),
        "edge_features": categories(edges, EDGE_CATEGORIES),
    }


def pad(graphs: Sequence[Graph], length: int, num_edges: int | None = None, filler: int = 0) -> Batch:
    """A batch of graphs, padded to `length` nodes and `num_edges` edges with `filler`, with its masks."""
    num_edges = max(graph["edge_index"].shape[1] for graph in graphs) if num_edges is None else num_edges
    rows: dict[str, list[Tensor]] = {}
    for graph in graphs:
        for name, value in graph.items():
            value = value.mT if name == "edge_index" else value
            room = (num_edges if name in BY_EDGE else length) - len(value)
            value = torch.cat([value, value.new_full((room, value.shape[1]), filler)])
            rows.setdefault(name, []).append(value.mT if name == "edge_index" else value)
        for name, count, total in (
            ("attention_mask", len(graph["node_features"]), length),
            ("edge_mask", graph["edge_index"].shape[1], num_edges),
        ):
            rows.setdefault(name, []).append((torch.arange(total) < count).long())
    return {name: torch.stack(values) for name, values in rows.items()}


def random_graphs(sizes: Sequence[int], seed: int = 0, length: int | None = None, filler: int = 0) -> Batch:
    """A padded batch of random graphs of the given sizes."""
    graphs = [random_graph(size, 1000 * seed + row) for row, size in enumerate(sizes)]
    return pad(graphs, length or max(sizes), filler=filler)


def permute(graph: Graph, order: Tensor, edge_order: Tensor | None = None) -> Graph:
    """The same graph with node i at the place where `order` says i, and its edges in another order."""
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    found = {name: value if name in BY_EDGE else value[order] for name, value in graph.items()}
    found["edge_index"] = place[graph["edge_index"]]
    if edge_order is not None:
        found["edge_index"] = found["edge_index"][:, edge_order]
        found["edge_features"] = found["edge_features"][edge_order]
    return found


def without_edge_features(batch: Batch) -> Batch:
    return {name: value for name, value in batch.items() if name != "edge_features"}
