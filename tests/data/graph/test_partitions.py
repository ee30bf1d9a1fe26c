"""Parts of one large graph: nothing lost or mixed up, seeds alone are labelled, and models learn from them."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch_geometric")
import torch_geometric.typing  # noqa: E402
from torch_geometric.data import Data  # noqa: E402

from modeling_sft.configuration_sft import SFTGraphConfig  # noqa: E402
from modeling_sft.data.graph.partitions import (  # noqa: E402
    cluster_partitions,
    model_inputs,
    random_partitions,
    sampled_neighborhoods,
)
from modeling_sft.graph.modeling_sft_graph import SFTForNodeClassification  # noqa: E402
from tiny_models import randomise  # noqa: E402

HAS_SAMPLER = torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE
HAS_METIS = torch_geometric.typing.WITH_METIS or torch_geometric.typing.WITH_TORCH_SPARSE


def numbered_graph(num_nodes, num_edges, seed=0):
    """Features of a node and encodings are its number, those of an edge its ends; some labels are missing."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(num_nodes, (2, num_edges), generator=generator)
    labels = torch.randint(3, (num_nodes,), generator=generator)
    labels[torch.rand(num_nodes, generator=generator) < 0.3] = -100
    labels[0] = 1
    return {
        "num_nodes": num_nodes,
        "node_feat": torch.arange(num_nodes)[:, None].numpy(),
        "edge_index": edge_index.numpy(),
        "edge_attr": edge_index.T.float().numpy(),
        "y": labels.numpy(),
    }


def check_batch(batch, row):
    """The batch is the induced subgraph of its nodes; returns their numbers in the whole graph."""
    nodes = batch["node_features"][0, :, 0]
    names = {"node_features", "edge_index", "edge_features", "node_encodings", "attention_mask", "edge_mask", "labels"}
    assert set(batch) == names
    assert batch["node_features"].dtype == batch["labels"].dtype == batch["edge_index"].dtype == torch.long
    assert batch["node_encodings"][0, :, 0].tolist() == nodes.tolist()
    assert batch["attention_mask"].shape == (1, len(nodes)) and bool(batch["attention_mask"].all())
    ends = nodes[batch["edge_index"][0]].T
    assert batch["edge_mask"].shape == (1, len(ends)) and bool(batch["edge_mask"].all())
    assert batch["edge_features"][0].tolist() == ends.tolist()
    inside = set(nodes.tolist())
    wanted = Counter(edge for edge in map(tuple, row["edge_index"].T.tolist()) if inside.issuperset(edge))
    assert Counter(map(tuple, ends.tolist())) == wanted
    return nodes


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 23), st.integers(0, 60), st.data())
def test_random_parts_hold_every_node_once_with_what_belongs_to_it(num_nodes, num_edges, data):
    row = numbered_graph(num_nodes, num_edges)
    num_parts = data.draw(st.integers(1, num_nodes))
    seeds = torch.rand(num_nodes, generator=torch.Generator().manual_seed(1)) < 0.5
    seeds[0] = True
    batches = random_partitions(row, num_parts, seeds, torch.arange(num_nodes)[:, None])
    found, counted = [], {}
    for batch in batches:
        nodes = check_batch(batch, row)
        found += nodes.tolist()
        counted |= dict(zip(nodes.tolist(), batch["labels"][0].tolist(), strict=True))
    assert sorted(found) == list(range(num_nodes))
    assert len(batches) <= num_parts
    assert counted == {i: int(row["y"][i]) if seeds[i] else -100 for i in range(num_nodes)}


def test_as_many_edges_as_nodes_confuse_nothing():
    row = numbered_graph(12, 12)
    for batch in random_partitions(row, 3, node_encodings=torch.arange(12)[:, None]):
        check_batch(batch, row)


def test_parts_are_drawn_anew_in_each_pass_and_follow_the_generator():
    def passes(**options):
        batches = random_partitions(numbered_graph(40, 0), 2, **options)
        return [[batch["node_features"].flatten().tolist() for batch in batches] for _ in range(2)]

    first, again = (passes(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == again
    assert first[0] != first[1]
    in_order = passes(shuffle=False)
    assert in_order[0] == in_order[1] == [list(range(20)), list(range(20, 40))]


def test_indices_and_masks_name_the_same_seeds():
    row = numbered_graph(9, 20)
    (by_index,) = random_partitions(row, 1, [0, 7], shuffle=False)
    (by_mask,) = random_partitions(row, 1, torch.isin(torch.arange(9), torch.tensor([0, 7])), shuffle=False)
    assert torch.equal(by_index["labels"], by_mask["labels"])
    assert (by_index["labels"][0] != -100).nonzero().flatten().tolist() in ([0], [0, 7])


def config(**changes):
    fields = {
        "num_node_features": 5,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 32,
        "num_sampled_tokens": 64,
        "num_labels": 3,
        "residual_scale_init": 1.0,
    }
    return SFTGraphConfig(**fields | changes)


def test_one_part_is_the_whole_graph_to_the_model():
    row = numbered_graph(17, 40)
    row["node_feat"] = torch.randn(17, 5, generator=torch.Generator().manual_seed(0)).numpy()
    torch.manual_seed(0)
    model = randomise(SFTForNodeClassification(config(num_edge_features=2))).eval()
    (batch,) = random_partitions(row, 1)
    whole = {
        "node_features": torch.as_tensor(row["node_feat"]),
        "edge_index": torch.as_tensor(row["edge_index"]),
        "edge_features": torch.as_tensor(row["edge_attr"]),
        "labels": torch.as_tensor(row["y"]),
    }
    with torch.no_grad():
        expected = model(**{name: value[None] for name, value in whole.items()}).loss
        torch.testing.assert_close(model(**batch).loss, expected, atol=1e-4, rtol=1e-4)


def test_a_model_learns_from_parts():
    row = numbered_graph(60, 200)
    del row["edge_attr"]
    labels = torch.arange(60) % 3
    row["node_feat"], row["y"] = torch.eye(5)[labels].numpy(), labels.numpy()
    torch.manual_seed(0)
    model = SFTForNodeClassification(config())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batches = random_partitions(row, 4, range(0, 60, 2), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(6):
        for batch in batches:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert sum(losses[-4:]) < 0.2 * sum(losses[:4])


def test_sampled_neighbours_behind_the_seeds_are_not_labelled():
    sampled = Data(x=torch.ones(5, 2), edge_index=torch.zeros(2, 1).long(), y=torch.arange(5))
    assert model_inputs(sampled)["labels"].tolist() == [[0, 1, 2, 3, 4]]
    sampled.batch_size = 2
    assert model_inputs(sampled)["labels"].tolist() == [[0, 1, -100, -100, -100]]
    assert sampled.y.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.skipif(HAS_SAMPLER, reason="pyg-lib is installed")
def test_neighbour_sampling_without_its_library_is_refused_by_name():
    with pytest.raises(ImportError, match="`NeighborLoader`.*`pyg-lib`.*`random_partitions`"):
        sampled_neighborhoods(numbered_graph(9, 20), [3], 2)


@pytest.mark.skipif(HAS_METIS, reason="pyg-lib is installed")
def test_metis_without_its_library_is_refused_by_name():
    with pytest.raises(ImportError, match="`ClusterData`.*`pyg-lib`.*`random_partitions`"):
        cluster_partitions(numbered_graph(9, 20), 2)


@pytest.mark.skipif(not HAS_SAMPLER, reason="needs pyg-lib")
def test_sampled_neighbourhoods_count_every_labelled_seed_once():
    row = numbered_graph(23, 60)
    counted = {}
    for batch in sampled_neighborhoods(row, [-1, -1], 4, node_encodings=torch.arange(23)[:, None]):
        nodes, labels = batch["node_features"][0, :, 0], batch["labels"][0]
        assert batch["edge_features"][0].tolist() == nodes[batch["edge_index"][0]].T.tolist()
        kept = {int(node): int(label) for node, label in zip(nodes, labels, strict=True) if label != -100}
        assert len(kept) <= 4 and not counted.keys() & kept.keys()
        counted |= kept
    assert counted == {i: int(label) for i, label in enumerate(row["y"]) if label != -100}


@pytest.mark.skipif(not HAS_METIS, reason="needs pyg-lib")
def test_clusters_hold_every_node_once():
    row = numbered_graph(23, 60)
    ends = torch.as_tensor(row["edge_index"])
    row |= {"edge_index": torch.cat([ends, ends.flip(0)], 1).numpy()}
    row["edge_attr"] = torch.as_tensor(row["edge_index"]).T.float().numpy()
    batches = cluster_partitions(row, 5, 2, node_encodings=torch.arange(23)[:, None])
    found = [check_batch(batch, row).tolist() for batch in batches]
    assert sorted(sum(found, [])) == list(range(23)) and len(found) == 3


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"num_parts": 0}, "`num_parts` must be an integer from 1 to 9; got 0"),
        ({}, {"num_parts": 10}, "`num_parts` must be an integer from 1 to 9; got 10"),
        ({"y": 1}, {}, "`row` has no class for each node"),
        ({"y": [0.5] * 9}, {}, "`row` has no class for each node"),
        ({"y": None}, {}, "`row` has no class for each node"),
        ({"y": [-100] * 9}, {}, "No seed has a label"),
        ({}, {"seeds": [9]}, "`seeds` must be"),
        ({}, {"seeds": [True] * 8}, "`seeds` must be"),
        ({}, {"seeds": [0.5]}, "`seeds` must be"),
        ({}, {"seeds": torch.zeros(9, dtype=torch.bool)}, "No seed has a label"),
        ({}, {"node_encodings": torch.zeros(8, 2)}, r"`node_encodings` has shape \(8, 2\)"),
    ],
)
def test_bad_arguments_are_named(changes, arguments, message):
    with pytest.raises(ValueError, match=message):
        random_partitions(numbered_graph(9, 20) | changes, **{"num_parts": 2} | arguments)
