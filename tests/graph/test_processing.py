"""The graph processor: kinds of graphs, encodings, padding, labels, refusals, saving."""

import os
import subprocess
import sys
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.configuration_sft import SFTGraphConfig
from modeling_sft.data.graph.rows import graph_rows
from modeling_sft.graph.encodings import laplacian_encodings, random_walk_encodings
from modeling_sft.graph.modeling_sft_graph import (
    SFTForGraphClassification,
    SFTForLinkPrediction,
    SFTForNodeClassification,
)
from modeling_sft.graph.processing import SFTGraphProcessor

SIZES = st.lists(st.sampled_from([1, 2, 3, 7, 17]), min_size=1, max_size=4)


def row(num_nodes, num_edges, seed=0, is_float=False, with_edge_attr=True, **extra):
    rng = np.random.default_rng(seed)
    graph = {
        "num_nodes": num_nodes,
        "node_feat": rng.normal(size=(num_nodes, 2)) if is_float else rng.integers(0, 5, (num_nodes, 2)),
        "edge_index": rng.integers(0, num_nodes, (2, num_edges)),
        **extra,
    }
    if with_edge_attr:
        graph["edge_attr"] = rng.integers(0, 4, (num_edges, 3))
    return graph


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, steps=st.sampled_from([0, 1, 4]), vectors=st.sampled_from([0, 3]), is_float=st.booleans())
def test_a_batch_is_its_graphs_padded(sizes, steps, vectors, is_float):
    processor = SFTGraphProcessor(steps, vectors)
    graphs = [row(size, 3 * (size - 1), seed, is_float, y=seed) for seed, size in enumerate(sizes)]
    batch = processor(graphs)
    num_nodes, num_edges = max(sizes), 3 * (max(sizes) - 1)
    assert batch["node_features"].shape == (len(sizes), num_nodes, 2)
    assert batch["node_features"].dtype == (torch.float32 if is_float else torch.int64)
    assert batch["edge_index"].shape == (len(sizes), 2, num_edges) and batch["edge_index"].dtype == torch.int64
    assert ("edge_features" in batch) == (num_edges > 0)
    assert ("node_encodings" in batch) == (processor.num_node_encodings > 0)
    assert batch["labels"].tolist() == list(range(len(sizes))) and batch["labels"].dtype == torch.int64
    for position, (graph, size) in enumerate(zip(graphs, sizes)):
        edges = 3 * (size - 1)
        assert batch["attention_mask"][position].tolist() == [1] * size + [0] * (num_nodes - size)
        assert batch["edge_mask"][position].tolist() == [1] * edges + [0] * (num_edges - edges)
        np.testing.assert_allclose(batch["node_features"][position, :size], graph["node_feat"], rtol=1e-6)
        np.testing.assert_array_equal(batch["edge_index"][position, :, :edges], graph["edge_index"])
        assert not batch["edge_index"][position, :, edges:].any()
        if num_edges:
            np.testing.assert_array_equal(batch["edge_features"][position, :edges], graph["edge_attr"])
        if processor.num_node_encodings:
            encodings = [
                random_walk_encodings(graph["edge_index"], size, steps),
                laplacian_encodings(graph["edge_index"], size, vectors),
            ]
            found = batch["node_encodings"][position]
            np.testing.assert_array_equal(found[:size], np.concatenate(encodings, axis=1))
            assert found.dtype == torch.float32 and not found[size:].any()


def check_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_kinds_of_graphs_agree():
    processor = SFTGraphProcessor(2, 1, ["a", "b"], ["kind"])
    network = nx.Graph(y=1)
    for node in range(3):
        network.add_node(node, a=node, b=node % 2)
    network.add_edge(0, 1, kind=[1, 0])
    network.add_edge(1, 2, kind=[2, 3])
    edge_index, edge_attr = [[0, 1, 1, 2], [1, 0, 2, 1]], [[1, 0], [1, 0], [2, 3], [2, 3]]
    features = [[0, 0], [1, 1], [2, 0]]
    hub_row = {"node_feat": features, "edge_index": edge_index, "edge_attr": edge_attr, "y": [[1]], "num_nodes": 3}
    data = SimpleNamespace(
        x=torch.tensor(features),
        edge_index=torch.tensor(edge_index),
        edge_attr=torch.tensor(edge_attr),
        y=torch.tensor([1]),
    )
    expected = processor(hub_row)
    assert expected["labels"].tolist() == [1] and expected["node_encodings"].shape == (1, 3, 3)
    rows = graph_rows([hub_row, hub_row])
    for same in (network, data, [hub_row], (data,), [network], rows.select([0])):
        check_same(processor(same), expected)
    check_same(processor([network, data]), processor(rows))
    assert processor(hub_row, return_tensors="np")["edge_index"].dtype == np.int64
    check_same(processor.pad([processor.item(network)]), expected)


def test_batches_of_pytorch_geometric_are_split():
    geometric = pytest.importorskip("torch_geometric.data")
    parts = [
        geometric.Data(x=torch.rand(size, 2), edge_index=torch.tensor([[0], [size - 1]]), y=torch.rand(1, 3))
        for size in (4, 2, 1)
    ]
    processor = SFTGraphProcessor(2)
    expected = processor(parts)
    assert expected["labels"].shape == (3, 3) and expected["attention_mask"].sum(1).tolist() == [4, 2, 1]
    batch = geometric.Batch.from_data_list(parts)
    for same in (batch, [batch], [geometric.Batch.from_data_list(parts[:2]), parts[2]]):
        check_same(processor(same), expected)
    with pytest.raises(ValueError, match="Batch of several graphs"):
        processor.item(batch)
    with pytest.raises(ValueError, match="node_feat is absent"):
        processor(geometric.Data(edge_index=parts[0].edge_index, num_nodes=4))
    with pytest.raises(ValueError, match="got HeteroData"):
        processor(geometric.HeteroData(kind={"x": torch.ones(2, 1)}))


def test_smiles_fit_their_vocabulary():
    pytest.importorskip("rdkit")
    processor = SFTGraphProcessor(random_walk_steps=3)
    batch = processor(["CCO", "C", "c1ccccc1"])
    assert batch["node_features"].shape == (3, 6, 9) and batch["edge_features"].shape == (3, 12, 3)
    assert batch["edge_mask"].sum(1).tolist() == [4, 0, 12] and "labels" not in batch
    check_same(processor("CCO"), processor(["CCO"]))
    config = SFTGraphConfig(
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_node_encodings=processor.num_node_encodings,
        **processor.molecule_vocab_sizes(),
    )
    model = SFTForGraphClassification(config).eval()
    assert model(**batch).logits.shape == (3, 2)
    # A batch without edges has no edge features, which the model accepts.
    assert model(**processor("[Na+]")).logits.shape == (1, 2)
    with pytest.raises(ValueError, match="Graph 1 of the batch: smiles 'C\\(' cannot be parsed"):
        processor(["C", "C("])


def test_descriptors_are_those_of_rdkit():
    descriptors = pytest.importorskip("rdkit.Chem.rdMolDescriptors")
    chem = pytest.importorskip("rdkit.Chem")
    names = ["tpsa", "CrippenClogP", "NumRings"]
    smiles = ["CC(=O)Nc1ccc(O)cc1", "[Na+]", "C1CC1C#N"]
    batch = SFTGraphProcessor(descriptors=names)(smiles)
    expected = [descriptors.Properties(names).ComputeProperties(chem.MolFromSmiles(one)) for one in smiles]
    np.testing.assert_allclose(batch["graph_features"].numpy(), np.array([list(row) for row in expected]), rtol=1e-6)
    every = SFTGraphProcessor(descriptors="all")
    assert len(every.descriptors) == every(smiles)["graph_features"].shape[1] > 40
    assert SFTGraphProcessor().descriptors == [] and "graph_features" not in SFTGraphProcessor()(smiles)


def test_descriptors_of_what_is_no_molecule_are_refused():
    pytest.importorskip("rdkit")
    for wrong in ("tpsa", ["tpsa", "weight"], [3]):
        with pytest.raises(ValueError, match='descriptors must be "all" or a list of .*CrippenClogP'):
            SFTGraphProcessor(descriptors=wrong)
    with pytest.raises(ValueError, match="`node_feat` has shape .*: molecules have 9 columns"):
        SFTGraphProcessor(descriptors=["tpsa"])(row(3, 2))


def test_labels_of_each_kind_train_a_model():
    processor = SFTGraphProcessor()
    sizes = (5, 1, 3)
    sizes_of_model = {"node_vocab_sizes": [5, 5], "edge_vocab_sizes": [4, 4, 4], "num_labels": 3}
    config = SFTGraphConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, **sizes_of_model)

    def batch(labels, **extra):
        graphs = [row(size, 4, size, y=label) for size, label in zip(sizes, labels)]
        return processor([{**graph, **{name: v[i] for name, v in extra.items()}} for i, graph in enumerate(graphs)])

    classes = batch([2, 0, -100])
    assert classes["labels"].tolist() == [2, 0, -100]
    targets = batch([[0.5, np.nan, 1.0], [0.0, 1.0, 0.2], [1.0, 1.0, np.nan]])
    assert targets["labels"].dtype == torch.float32 and targets["labels"].isnan().sum() == 2
    nodes = batch([[0, 1, 2, 0, 1], [2], [1, -100, 1]])
    assert nodes["labels"].tolist() == [[0, 1, 2, 0, 1], [2, -100, -100, -100, -100], [1, -100, 1, -100, -100]]
    pairs = batch(
        [0, 1, 2],
        edge_label_index=[[[0, 1], [4, 2]], [[0], [0]], [[2, 0, 1], [0, 2, 1]]],
        edge_label=[[1, 0], [0], [1, 1, 0]],
    )
    assert pairs["labels"].tolist() == [[1, 0, -100], [0, -100, -100], [1, 1, 0]]
    assert pairs["node_pairs"].tolist()[0] == [[0, 4], [1, 2], [0, 0]] and pairs["node_pairs"].shape == (3, 3, 2)
    heads = (
        (SFTForGraphClassification, classes),
        (SFTForGraphClassification, targets),
        (SFTForNodeClassification, nodes),
        (SFTForLinkPrediction, pairs),
    )
    for head, inputs in heads:
        loss = head(SFTGraphConfig(**config.to_dict()))(**inputs).loss
        assert loss.isfinite() and loss > 0, head


def test_graphs_without_edges_go_with_all_others():
    processor = SFTGraphProcessor()
    graphs = [row(2, 3), row(3, 0, with_edge_attr=False), {**row(1, 0, with_edge_attr=False), "edge_attr": []}]
    batch = processor(graphs)
    assert batch["edge_features"].shape == (3, 3, 3) and batch["edge_features"].dtype == torch.int64
    assert batch["edge_mask"].sum(1).tolist() == [3, 0, 0]
    alone = processor(graphs[1:])
    assert alone["edge_index"].shape == (2, 2, 0) and "edge_features" not in alone


def test_categories_and_floats_meet_as_floats():
    batch = SFTGraphProcessor()([row(3, 2), row(4, 2, is_float=True)])
    assert batch["node_features"].dtype == torch.float32
    assert batch["node_features"][0, :3].tolist() == row(3, 2)["node_feat"].tolist()


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ([], "graphs is empty"),
        ([row(3, 2), row(3, 2, with_edge_attr=False)], r"items\[1\] has no edge_features \(edge_attr\)"),
        ([row(3, 2, y=1), row(3, 2)], r"items\[1\] has no labels \(y\)"),
        ([row(3, 2), {**row(3, 2), "node_feat": [[1]] * 3}], r"node_features of items\[1\] has 1 columns"),
        ([row(3, 2, y=1), row(3, 2, y=[0.5])], r"labels \(y\) differ"),
        ([row(3, 2, y=[0.5, 1.0]), row(3, 2, y=[0.5])], r"labels \(y\) differ"),
        ([row(3, 2, y=[0, 1, 2]), row(3, 2, y=1)], r"labels \(y\) differ"),
        ([row(3, 2), {"node_feat": [], "edge_index": [[], []]}], "Graph 1 of the batch: num_nodes is 0"),
        ({**row(3, 2), "node_feat": [[0.5], [np.nan], [1]]}, "^node_feat holds numbers that are not finite"),
        ({**row(3, 1), "edge_index": [[0], [3]]}, "edge_index must be between 0 and 2"),
        (nx.path_graph(3), "node_attributes is empty"),
        (5, "graph must be a PyTorch Geometric Data, .*; got int"),
        ([None], "got NoneType"),
    ],
)
def test_what_does_not_fit_is_named(graphs, message):
    with pytest.raises(ValueError, match=message):
        SFTGraphProcessor()(graphs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random_walk_steps": -1}, "random_walk_steps must be an integer"),
        ({"laplacian_vectors": 2.0}, "laplacian_vectors must be an integer"),
        ({"node_attributes": "kind"}, "node_attributes must be a list"),
        ({"edge_attributes": [1]}, "edge_attributes must be a list"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SFTGraphProcessor(**arguments)


SCRIPT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_sft", "networkx", "rdkit", "torch_geometric"):
            raise ImportError("not installed here")

sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoFeatureExtractor

folder = sys.argv[1]
processor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
assert type(processor).__module__.startswith("transformers_modules."), type(processor)
stored = torch.load(folder + "/stored.pt", weights_only=False)
for name, value in processor(stored["graphs"]).items():
    assert torch.equal(value, stored["batch"][name]), name
try:
    processor("CCO")
except ImportError as error:
    assert "modeling-sft[graphs]" in str(error), error
    print("REMOTE CODE WORKS")
"""


def test_saving_carries_settings_and_code(tmp_path):
    processor = SFTGraphProcessor(3, 2, ["kind"], ["bond"])
    pytest.importorskip("rdkit")
    SFTGraphProcessor(descriptors=["tpsa"]).save_pretrained(tmp_path / "molecules")
    assert SFTGraphProcessor.from_pretrained(tmp_path / "molecules").descriptors == ["tpsa"]
    graphs = [row(5, 9), row(3, 2)]
    processor.save_pretrained(tmp_path)
    torch.save({"graphs": graphs, "batch": dict(processor(graphs))}, tmp_path / "stored.pt")
    again = SFTGraphProcessor.from_pretrained(tmp_path)
    assert (again.random_walk_steps, again.laplacian_vectors) == (3, 2)
    assert (again.node_attributes, again.edge_attributes) == (["kind"], ["bond"])
    assert SFTGraphProcessor.from_pretrained(tmp_path, laplacian_vectors=4).num_node_encodings == 7
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert "REMOTE CODE WORKS" in done.stdout, done.stderr
