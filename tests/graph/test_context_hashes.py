"""Context hashes of graphs: those of nodes are equal where Weisfeiler-Leman colours are, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from configurations import tiny_graph_config
from modeling_sft.graph.context_hashes import graph_hashes
from modeling_sft.graph.relation import GraphEdges
from random_graphs import Batch, pad, permute, random_graph

RADIUS = 3


def hashes_of(batch: Batch, **changes: Any) -> torch.Tensor:
    config = tiny_graph_config(**({"context_hash_radius": RADIUS} | changes))
    mask = batch["attention_mask"].bool()
    edges = GraphEdges(
        batch["edge_index"].masked_fill(~batch["edge_mask"].bool()[:, None], 0),
        batch["edge_mask"].bool(),
        batch.get("edge_features"),
        mask.shape[1],
    )
    return graph_hashes(batch["node_features"], mask, edges, config).ids


def colours(graph: Any) -> list[list[Any]]:
    """Nested tuples in place of hashes, one for each node and radius."""
    nodes = [tuple(row) for row in graph["node_features"][:, :2].long().tolist()]
    kinds = [tuple(row) for row in graph["edge_features"].long().tolist()]
    edges = list(zip(*graph["edge_index"].tolist(), kinds, strict=True))
    found = [nodes]
    for _ in range(RADIUS):
        last = found[-1]
        messages: list[list[Any]] = [[] for _ in last]
        for source, target, kind in edges:
            messages[target].append((kind, last[source]))
        found.append([(last[i], tuple(sorted(messages[i], key=repr))) for i in range(len(last))])
    return found


def few_categories(size: int, seed: int) -> Any:
    """A graph of many equal neighbourhoods: one category of nodes and of edges stays."""
    graph = random_graph(size, seed=seed, edges=size)
    graph["node_features"][:, 0] = 1
    graph["edge_features"][:] = 0
    return graph


@pytest.mark.parametrize("seed", range(4))
def test_ids_are_equal_for_equal_balls_alone(seed: int) -> None:
    graphs = [few_categories(size, seed) for size in (12, 7, 1)]
    ids = hashes_of(pad(graphs, 15, 40))
    for radius in range(RADIUS + 1):
        known: dict[Any, int] = {}
        for row, graph in enumerate(graphs):
            for node, colour in enumerate(colours(graph)[radius]):
                found = int(ids[row, node, radius])
                assert known.setdefault(colour, found) == found
        assert len(set(known.values())) == len(known)
        assert radius > 0 or len(known) < 20


def test_the_order_of_nodes_and_edges_changes_no_ball() -> None:
    graph = random_graph(11, seed=0)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(11, generator=generator)
    edges = torch.randperm(graph["edge_index"].shape[1], generator=generator)
    found = hashes_of(pad([permute(graph, order, edges)], 11))
    assert torch.equal(found[0], hashes_of(pad([graph], 11))[0, order])


def test_direction_categories_and_seed_count_and_numbers_do_not() -> None:
    graph = random_graph(9, seed=1)
    expected = hashes_of(pad([graph], 9))
    for name, changed, same in (
        ("edge_index", graph["edge_index"].flip(0), False),
        ("edge_features", (graph["edge_features"] + 1) % 3, False),
        ("node_features", torch.cat([graph["node_features"][:, :2], graph["node_features"][:, 2:] + 1], 1), True),
    ):
        assert torch.equal(hashes_of(pad([{**graph, name: changed}], 9)), expected) == same, name
    assert not (hashes_of(pad([graph], 9), context_hash_seed=1) == expected).any()
