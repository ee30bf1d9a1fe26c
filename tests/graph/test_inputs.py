"""Graphs of other libraries become rows of one schema."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_sft.data.graph.degrees import degree_features
from modeling_sft.data.graph.rows import graph_rows
from modeling_sft.graph.inputs import check_graph, graph_from_networkx, graph_from_pyg, graphs_from_pyg_batch

ROW = {
    "num_nodes": 3,
    "node_feat": [[1], [2], [0]],
    "edge_index": [[0, 1], [1, 2]],
    "edge_attr": [[5], [6]],
    "y": [[1]],
}


def test_hub_rows_and_rows_in_memory():
    graph = check_graph(ROW)
    assert graph["num_nodes"] == 3 and graph["y"] == 1 and graph["edge_attr"].tolist() == [[5], [6]]
    assert graph["node_feat"].dtype == graph["edge_index"].dtype == np.int64
    alone = check_graph({"node_feat": [[1]], "edge_index": [[], []], "edge_attr": np.empty((0, 1), int), "y": 0})
    rows = graph_rows([graph, alone], ["no", "yes"])
    assert rows.features["y"].names == ["no", "yes"]
    assert rows[1]["edge_index"].shape == (2, 0) and rows[1]["edge_attr"].shape == (0, 1)
    np.testing.assert_array_equal(rows[0]["edge_index"], ROW["edge_index"])
    with pytest.raises(ValueError, match=r"Graph 1 \(counted from 0\) has"):
        graph_rows([graph, {**ROW, "y": [0.5, 1.0]}])
    with pytest.raises(ValueError, match=r"Graph 0 .*edge_index must be between 0 and 2"):
        graph_rows([{**ROW, "edge_index": [[0, 1], [1, 3]]}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_nodes": 0, "node_feat": []}, "needs at least one node"),
        ({"num_nodes": 4}, "expected one for each of the 4 nodes"),
        ({"node_feat": None}, "node_feat is absent"),
        ({"node_feat": [["a"], ["b"], ["c"]]}, "must hold numbers"),
        ({"node_feat": [[1], [2, 3], [4]]}, "different lengths"),
        ({"node_feat": [[1.0], [np.nan], [2.0]]}, "not finite"),
        ({"edge_index": [[0, 1], [1, 3]]}, "between 0 and 2"),
        ({"edge_index": [[0, -1], [1, 1]]}, "between 0 and 2"),
        ({"edge_index": [[0, 1]]}, r"expected \(2, edges\)"),
        ({"edge_index": [[0.0, 1.0], [1.0, 2.0]]}, "of integers"),
        ({"edge_attr": [[1]]}, "one for each of the 2 edges"),
        ({"y": [1, 2]}, "y has shape"),
        ({"y": [np.inf]}, "y has shape"),
        ({"pos": [[0.0, 1.0]]}, "pos has 1 rows"),
        ({"edge_label_index": [[0], [9]]}, "edge_label_index must be between"),
        ({"edge_label_index": [[0], [1]], "edge_label": [1, 0]}, "edge_label has shape"),
    ],
)
def test_wrong_graphs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_graph({**ROW, **changes})


def test_labels_of_graphs_nodes_and_targets():
    assert check_graph({**ROW, "y": [2, 0, 1]})["y"].tolist() == [2, 0, 1]
    targets = check_graph({**ROW, "y": [[0.5, np.nan, 1.0]]})["y"]
    assert targets.dtype == np.float32 and np.isnan(targets[1])
    assert check_graph({**ROW, "y": [0.5]})["y"].tolist() == [0.5]


def test_duck_typed_data():
    data = SimpleNamespace(
        x=torch.rand(3, 2),
        edge_index=torch.tensor([[0, 1], [1, 0]]),
        edge_attr=torch.tensor([1, 2]),
        y=torch.tensor([1]),
    )
    graph = graph_from_pyg(data)
    assert graph["node_feat"].dtype == np.float32 and graph["edge_attr"].shape == (2, 1) and graph["y"] == 1
    np.testing.assert_array_equal(graph["node_feat"], data.x.numpy())


def test_batches():
    pyg = pytest.importorskip("torch_geometric.data")
    one = pyg.Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([[0.0, 1.0]]))
    other = pyg.Data(x=torch.zeros(3, 1), edge_index=torch.tensor([[2], [1]]), y=torch.tensor([[1.0, 1.0]]))
    graphs = graphs_from_pyg_batch(pyg.Batch.from_data_list([one, other]))
    assert graphs[1]["edge_index"].tolist() == [[2], [1]] and graphs[1]["y"].tolist() == [1, 1]
    assert [graph["num_nodes"] for graph in graphs] == [2, 3]
    with pytest.raises(ValueError, match="must be a torch_geometric"):
        graphs_from_pyg_batch([one])


def test_networkx():
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph()
    for node in ("b", "a", "c"):
        graph.add_node(node, kind=ord(node), size=[1, 2])
    graph.add_edge("a", "c", weight=0.5)
    graph.add_edge("b", "b", weight=1.5)
    row = graph_from_networkx(graph, ["kind", "size"], ["weight"], y=1)
    assert row["node_feat"].tolist() == [[98, 1, 2], [97, 1, 2], [99, 1, 2]]
    assert sorted(map(tuple, row["edge_index"].T.tolist())) == [(0, 0), (1, 2), (2, 1)]
    assert sorted(row["edge_attr"][:, 0].tolist()) == [0.5, 0.5, 1.5]
    assert graph_from_networkx(graph.to_directed(), ["kind"])["edge_index"].shape == (2, 3)
    with pytest.raises(ValueError, match="node 'b' has no attribute 'age' but kind, size"):
        graph_from_networkx(graph, ["age"])


def test_degrees_are_capped():
    assert degree_features([[0, 0, 0, 2], [1, 2, 3, 0]], 4, 2).tolist() == [[2], [0], [1], [0]]
