"""Graph data sets by name: registry, Peptides-func and TUDataset."""

import inspect

import numpy as np
import pytest

from modeling_sft.data.graph.folds import fold_indices, stratified_folds
from modeling_sft.data.graph.readers import GRAPH_READERS, load_graph_dataset
from paths import ROOT

pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="'mutag'"):
        load_graph_dataset("mutagg")
    with pytest.raises(ValueError, match="'peptides_func' has no option 'fold'; it has none"):
        load_graph_dataset("peptides_func", fold=1)


@pytest.mark.parametrize("name", sorted(GRAPH_READERS))
def test_every_data_set_is_documented_and_says_what_it_lacks(tmp_path, name):
    page = (ROOT / "docs" / "graph_data.md").read_text()
    assert f"`{name}`" in page
    for option in GRAPH_READERS[name].options:
        assert f"`{option}`" in page
    parameters = inspect.signature(GRAPH_READERS[name].read).parameters
    assert list(parameters)[1:] == list(GRAPH_READERS[name].options)
    options = {}
    if "download" in parameters:
        pytest.importorskip("torch_geometric")
        options = {"download": False}
    with pytest.raises(ValueError, match=f"(?s)data_dir is needed for {name};.*expected layout.*DATA_DIR/"):
        load_graph_dataset(name)
    with pytest.raises(ValueError, match="(?s)expected layout.*DATA_DIR/"):
        load_graph_dataset(name, tmp_path, **options)


def peptides():
    return {
        "node_feat": np.arange(54).reshape(6, 9).astype(np.uint8),
        "node_offset": np.array([0, 3, 4, 6], np.int32),
        "edge_index": np.array([[0, 1, 0], [1, 2, 1]], np.uint16),
        "edge_feat": np.arange(9).reshape(3, 3).astype(np.uint8),
        "edge_offset": np.array([0, 2, 2, 3], np.int32),
        "label": np.eye(3, 10).astype(np.uint8),
        "split": np.array([1, 0, 2], np.uint8),
    }


def write_peptides(folder, **changes):
    (folder / "peptides_func").mkdir(exist_ok=True)
    np.savez(folder / "peptides_func" / "graphs.npz", **{**peptides(), **changes})


@pytest.mark.parametrize(("name", "first", "count"), [("peptides_func", "antifungal", 10), ("tox21", "NR-AR", 12)])
def test_targets_have_names(name, first, count):
    names = GRAPH_READERS[name].target_names()
    assert names[0] == first and len(set(names)) == len(names) == count


def test_peptides_have_both_directions_of_each_bond(tmp_path):
    write_peptides(tmp_path)
    splits = load_graph_dataset("peptides_func", tmp_path)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 1, "validation": 1, "test": 1}
    row = splits["validation"][0]
    assert row["num_nodes"] == 3 and row["node_feat"].tolist() == peptides()["node_feat"][:3].tolist()
    assert row["edge_index"].tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert row["edge_attr"].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert row["y"].dtype == np.float32 and row["y"].tolist() == [1.0] + [0.0] * 9
    assert all(row[name].dtype == np.int64 for name in ("node_feat", "edge_index", "edge_attr"))
    alone = splits["train"][0]
    assert alone["edge_index"].shape == (2, 0) and alone["edge_attr"].shape == (0, 3)
    assert splits["test"][0]["edge_index"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"edge_index": np.array([[0, 1, 0], [1, 2, 2]], np.uint16)}, "edge_index of graph 2"),
        ({"edge_index": np.zeros((2, 4), np.uint16)}, "edge_index has shape"),
        ({"node_offset": np.array([0, 3, 3, 6])}, "graph 1 .*has no nodes"),
        ({"node_offset": np.array([0, 3, 4, 7])}, "node_offset does not increase from 0 to 6"),
        ({"edge_offset": np.array([0, 2, 1, 3])}, "edge_offset does not increase"),
        ({"label": np.full((3, 10), 2)}, "label is not between"),
        ({"split": np.array([0, 1, 3])}, "split is not between"),
        ({"node_feat": np.zeros((6, 8), int)}, "node_feat has shape"),
    ],
)
def test_damaged_peptides_are_named(tmp_path, changes, match):
    write_peptides(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"graphs\.npz is damaged.*{match}"):
        load_graph_dataset("peptides_func", tmp_path)


def test_folds_are_a_function_of_seed_and_labels():
    labels = np.repeat([3, 1, 2], [25, 11, 4])
    folds = stratified_folds(labels, 4, seed=7)
    for rows in (folds, *(folds[labels == one] for one in (1, 2, 3))):
        assert np.ptp(np.bincount(rows, minlength=4)) <= 1
    # Committed: results of different versions must be on the same folds.
    assert stratified_folds([0, 0, 0, 1, 1, 1], 3, seed=0).tolist() == COMMITTED_FOLDS
    assert (stratified_folds(labels, 4, seed=8) != folds).any()
    for num_folds in (1, 26, True, 2.0):
        with pytest.raises(ValueError, match="num_folds"):
            stratified_folds(labels, num_folds, seed=0)


COMMITTED_FOLDS = [2, 1, 0, 2, 0, 1]

TEXTS = {
    # The edges of the second graph come first, and the third graph has none.
    "A": "4, 5\n5, 4\n1, 2\n2, 1\n2, 3\n3, 2\n",
    "graph_indicator": "1\n1\n1\n2\n2\n3\n",
    "graph_labels": "1\n-1\n1\n",
    "node_labels": "1\n3\n1\n2\n1\n2\n",
    "node_attributes": "0.5, 1\n1, 2\n2, 3\n3, 4\n4, 5\n5, 6\n",
    "edge_labels": "7\n7\n5\n5\n6\n6\n",
}


def write_texts(folder, name="MUTAG", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in {**TEXTS, **changes}.items():
        if content is not None:
            (folder / f"{name}_{part}.txt").write_text(content)


def all_rows(splits):
    rows = [row for split in splits.values() for row in split]
    return sorted(rows, key=lambda row: -row["num_nodes"])


@pytest.mark.parametrize("folder", ["MUTAG", "MUTAG/raw", "tudatasets/MUTAG"])
def test_official_texts(tmp_path, folder):
    write_texts(tmp_path / folder)
    splits = load_graph_dataset("mutag", tmp_path, num_folds=2, fold=1)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "test": 1}
    assert splits["train"].features["y"].names == ["-1", "1"]
    first, second, third = all_rows(splits)
    assert first["node_feat"].tolist() == [[0], [2], [0]] and second["node_feat"].tolist() == [[1], [0]]
    assert first["edge_index"].tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert first["edge_attr"].tolist() == [[0], [0], [1], [1]] and second["edge_attr"].tolist() == [[2], [2]]
    assert second["edge_index"].tolist() == [[0, 1], [1, 0]] and third["edge_index"].shape == (2, 0)
    assert [row["y"] for row in (first, second, third)] == [1, 0, 1]
    first = all_rows(load_graph_dataset("mutag", tmp_path, num_folds=2, node_attributes=True))[0]
    assert first["node_feat"].tolist() == [[0.5, 1, 1, 0, 0], [1, 2, 0, 0, 1], [2, 3, 1, 0, 0]]
    assert first["node_feat"].dtype == np.float32


def test_folds_are_disjoint_and_cover_all(tmp_path):
    write_texts(tmp_path / "MUTAG")
    tests = [load_graph_dataset("mutag", tmp_path, num_folds=2, fold=fold)["test"] for fold in range(2)]
    assert sorted(int(row["num_nodes"]) for rows in tests for row in rows) == [1, 2, 3]
    with pytest.raises(ValueError, match="fold must be an integer from 0 to num_folds - 1 = 1; got 2"):
        load_graph_dataset("mutag", tmp_path, num_folds=2, fold=2)


def test_validation_splits_of_folds():
    labels = np.repeat([0, 1], [30, 18])
    folds = stratified_folds(labels, 4, seed=5)
    for fold in range(4):
        parts = fold_indices(labels, fold, 4, None, 5)
        assert parts["test"].tolist() == np.flatnonzero(folds == fold).tolist() and list(parts) == ["train", "test"]
        for validation in ("next_fold", 0.25):
            parts = fold_indices(labels, fold, 4, validation, 5)
            assert parts["test"].tolist() == np.flatnonzero(folds == fold).tolist()
            assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(48))
            share = np.bincount(labels[parts["validation"]]) / np.bincount(labels)
            # A quarter of three quarters, or one fold of four.
            expected = 0.25 if validation == "next_fold" else 0.1875
            np.testing.assert_allclose(share, expected, atol=1 / 18)
        next_fold = fold_indices(labels, fold, 4, "next_fold", 5)["validation"]
        assert next_fold.tolist() == np.flatnonzero(folds == (fold + 1) % 4).tolist()


@pytest.mark.parametrize("validation", [0.0, 1.0, 1, True, "fold", -0.1])
def test_unknown_validation_is_refused(validation):
    with pytest.raises(ValueError, match='validation must be "next_fold", a fraction between 0 and 1 or None'):
        fold_indices(np.arange(6) % 2, 0, 3, validation, 0)
    with pytest.raises(ValueError, match="num_folds must be at least 3"):
        fold_indices(np.arange(6) % 2, 0, 2, "next_fold", 0)


def test_degrees_stand_for_absent_labels(tmp_path):
    write_texts(tmp_path / "MUTAG", node_labels=None, node_attributes=None, edge_labels=None)
    first = all_rows(load_graph_dataset("mutag", tmp_path, num_folds=2))[0]
    assert first["node_feat"].tolist() == [[1], [2], [1]] and "edge_attr" not in first
    first = all_rows(load_graph_dataset("mutag", tmp_path, num_folds=2, max_degree=1))[0]
    assert first["node_feat"].tolist() == [[1], [1], [1]]
    with pytest.raises(ValueError, match="max_degree must be an integer of at least 1"):
        load_graph_dataset("mutag", tmp_path, max_degree=0)
    with pytest.raises(ValueError, match="node_attributes must be False"):
        load_graph_dataset("mutag", tmp_path, num_folds=2, node_attributes=True)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"A": "1, 4\n"}, "A.txt is damaged.*row 0 .*joins two graphs"),
        ({"A": "1, 2\n1, 7\n"}, "A.txt is damaged.*row 1 .*between 1 and 6"),
        ({"A": "1, 7\n"}, "A.txt is damaged.*between 1 and 6"),
        ({"A": "1, 2, 3\n"}, "A.txt is damaged.*3 numbers"),
        ({"A": "1, x\n"}, "A.txt is damaged.*no table of numbers"),
        ({"graph_indicator": "1\n2\n1\n2\n2\n3\n"}, "graph_indicator.txt is damaged.*row 2 .*do not increase"),
        ({"graph_indicator": "1\n1\n1\n2\n2\n4\n"}, "graph_indicator.txt is damaged.*do not increase"),
        ({"graph_indicator": "1\n1\n1\n3\n3\n3\n"}, "graph 1 .*has no nodes"),
        ({"node_labels": "1\n"}, "node_labels.txt is damaged.*1 rows; expected 6"),
        ({"edge_labels": "1\n"}, "edge_labels.txt is damaged.*1 rows; expected 6"),
        ({"graph_labels": ""}, "graph_labels.txt is damaged"),
    ],
)
def test_damaged_texts_are_named(tmp_path, changes, match):
    write_texts(tmp_path / "MUTAG", **changes)
    with pytest.raises(ValueError, match=match):
        load_graph_dataset("mutag", tmp_path, num_folds=2)


def test_archives(tmp_path):
    (tmp_path / "tudatasets").mkdir()
    path = tmp_path / "tudatasets" / "IMDBBINARY.npz"
    archive = {
        "label": np.array([1, 0, 1], np.int16),
        "node_tag": np.zeros(6, np.int32),
        "node_offset": np.array([0, 3, 5, 6]),
        "edge_index": np.array([[0, 1, 1, 2, 0, 1], [1, 0, 2, 1, 1, 0]], np.int32),
        "edge_offset": np.array([0, 4, 6, 6]),
    }
    np.savez(path, **archive)
    first, second, _ = all_rows(load_graph_dataset("imdb_binary", tmp_path, num_folds=2))
    assert first["node_feat"].tolist() == [[1], [2], [1]] and second["node_feat"].tolist() == [[1], [1]]
    assert (first["y"], second["y"]) == (1, 0) and second["edge_index"].tolist() == [[0, 1], [1, 0]]
    np.savez(path, **{**archive, "node_tag": np.array([4, 0, 0, 1, 1, 0])})
    assert all_rows(load_graph_dataset("imdb_binary", tmp_path, num_folds=2))[0]["node_feat"].tolist() == [
        [4],
        [0],
        [0],
    ]
    with pytest.raises(ValueError, match="node_attributes must be False"):
        load_graph_dataset("imdb_binary", tmp_path, num_folds=2, node_attributes=True)
