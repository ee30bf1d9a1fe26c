"""One graph with classes of nodes, in the csv files of OGB."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sft.data.graph.node_csv import _without_reverse
from modeling_sft.data.graph.readers import load_graph_dataset

FILES = {
    "raw/edge": "0,1\n1,0\n2,3\n3,3\n4,1\n",
    "raw/node-feat": "0.5,1\n1,2\n2,3\n3,4\n4,5.25\n",
    "raw/node-label": "2\n0\n\n1\n2\n",
    "raw/num-node-list": "5\n",
    "raw/num-edge-list": "5\n",
    "split/time/train": "4\n0\n",
    "split/time/valid": "1\n",
    "split/time/test": "2\n3\n",
}


pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def write(folder, changes=None, suffix=".csv.gz"):
    for name, content in {**FILES, **(changes or {})}.items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(gzip.compress(content.encode()) if suffix.endswith("gz") else content.encode())


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("node_csv", "."),
        ("ogbn_arxiv", "ogbn_arxiv"),
        ("ogbn_arxiv", "arxiv"),
        ("ogbn_products", "ogbn_products"),
        ("ogbn_products", "products"),
    ],
)
def test_splits_are_one_graph_with_different_labels(tmp_path, name, folder):
    write(tmp_path / folder)
    splits = load_graph_dataset(name, tmp_path)
    labels = {
        "train": [2, -100, -100, -100, 2],
        "validation": [-100, 0, -100, -100, -100],
        "test": [-100] * 3 + [1, -100],
    }
    assert list(splits) == list(labels)
    for split, rows in splits.items():
        assert len(rows) == 1 and sorted(rows.column_names) == ["edge_index", "node_feat", "num_nodes", "y"]
        row = rows[0]
        assert row["y"].dtype == np.int64 and row["y"].tolist() == labels[split]
        assert row["num_nodes"] == 5 and row["node_feat"].dtype == np.float32
        assert row["node_feat"].tolist() == [[0.5, 1], [1, 2], [2, 3], [3, 4], [4, 5.25]]
        # The reverse of 0, 1 is there, and the loop is its own.
        assert row["edge_index"].tolist() == [[0, 1, 2, 3, 4, 3, 1], [1, 0, 3, 3, 1, 2, 4]]
        assert rows.features["y"].feature.num_classes == 3


def test_edges_as_given_and_their_features(tmp_path):
    write(tmp_path, {"raw/edge-feat": "1\n2\n3\n4\n5\n", "raw/node-feat": "1\n2\n3\n4\n5\n"}, suffix=".csv")
    row = load_graph_dataset("node_csv", tmp_path, undirected=False)["train"][0]
    assert row["edge_index"].tolist() == [[0, 1, 2, 3, 4], [1, 0, 3, 3, 1]]
    assert row["edge_attr"].tolist() == [[1], [2], [3], [4], [5]]
    assert row["edge_attr"].dtype == row["node_feat"].dtype == np.int64
    row = load_graph_dataset("node_csv", tmp_path)["train"][0]
    assert row["edge_attr"].tolist() == [[1], [2], [3], [4], [5], [3], [5]]


def test_the_first_nodes_may_lack_labels(tmp_path):
    write(tmp_path, {"raw/node-label": "\n\n0\n1\n1\n"})
    splits = load_graph_dataset("node_csv", tmp_path)
    assert [rows[0]["y"].tolist() for rows in splits.values()] == [
        [-100, -100, -100, -100, 1],
        [-100] * 5,
        [-100, -100, 0, 1, -100],
    ]


def test_schemes(tmp_path):
    write(tmp_path, {"split/random/train": "1\n", "split/random/valid": "0\n", "split/random/test": "3\n"})
    with pytest.raises(ValueError, match="has random, time: name one of them as split_scheme"):
        load_graph_dataset("node_csv", tmp_path)
    splits = load_graph_dataset("node_csv", tmp_path, split_scheme="random")
    assert splits["train"][0]["y"].tolist() == [-100, 0, -100, -100, -100]
    with pytest.raises(ValueError, match="(?s)'sales' is no folder.*random, time.*expected layout"):
        load_graph_dataset("node_csv", tmp_path, split_scheme="sales")


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12, unique=True))
def test_every_edge_gets_one_reverse(pairs):
    edge_index = np.array(pairs).T
    reverses = edge_index[::-1, _without_reverse(edge_index, 5)]
    found = sorted(map(tuple, np.concatenate([edge_index, reverses], axis=1).T.tolist()))
    assert found == sorted({*pairs, *((target, source) for source, target in pairs)})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"raw/edge": "0,5\n"}, "edge.csv.gz is damaged.*between 0 and 4"),
        ({"raw/edge": "0,-1\n"}, "edge.csv.gz is damaged.*between 0 and 4"),
        ({"raw/edge": "0,1,2\n"}, "edge.csv.gz is damaged.*3 numbers; expected 2"),
        ({"raw/edge": "0,1.5\n"}, "edge.csv.gz is damaged.*else than integers"),
        ({"raw/edge": "0,x\n"}, "edge.csv.gz is damaged.*else than numbers"),
        ({"raw/edge": ""}, "edge.csv.gz is damaged.*cannot be read"),
        ({"raw/node-feat": "1\n"}, "node-feat.csv.gz is damaged.*1 lines; expected one for each of the 5 nodes"),
        ({"raw/node-feat": "0.5\n\n1\n1\n1\n"}, "node-feat.csv.gz is damaged.*missing or not finite"),
        ({"raw/node-label": "0\n1\n"}, "node-label.csv.gz is damaged.*2 lines; expected 5"),
        ({"raw/node-label": "0\n1\n2\n1\n0.5\n"}, "node-label.csv.gz is damaged.*no classes"),
        ({"raw/node-label": "0\n1\n2\n1\n-1\n"}, "node-label.csv.gz is damaged.*no classes"),
        ({"raw/node-label": "0,1\n" * 5}, "node-label.csv.gz is damaged.*2 or more numbers"),
        ({"raw/node-label": "\n" * 5}, "node-label.csv.gz is damaged.*no labels"),
        ({"raw/num-node-list": "3\n2\n"}, "num-node-list.csv.gz is damaged.*2 numbers; expected one"),
        ({"raw/edge-feat": "1\n"}, "edge-feat.csv.gz is damaged.*1 lines; expected one for each of 5 edges"),
        ({"split/time/valid": "5\n"}, "valid.csv.gz is damaged.*between 0 and 4"),
        ({"split/time/test": "4\n"}, "test.csv.gz is damaged.*node 4 is in another split"),
        ({"split/time/test": None}, "There is no file .*test.csv.gz"),
    ],
)
def test_damaged_files_are_named(tmp_path, changes, match):
    write(tmp_path, changes)
    with pytest.raises(ValueError, match=match):
        load_graph_dataset("node_csv", tmp_path)


def test_categories_that_turn_out_to_be_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_sft.data.graph.node_csv.NUM_FIRST_LINES", 2)
    write(tmp_path, {"raw/node-feat": "1\n2\n3\n4\n0.5\n"})
    with pytest.raises(ValueError, match="its first 2 lines are integers .*write numbers as 1.0"):
        load_graph_dataset("node_csv", tmp_path)
