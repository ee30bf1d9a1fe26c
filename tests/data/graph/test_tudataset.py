"""Graphs of one's own in the text files of TUDataset."""

import numpy as np
import pytest

from modeling_sft.data.graph.folds import fold_indices
from modeling_sft.data.graph.readers import load_graph_dataset

FILES = {
    # The edges of the last graph come first, and the third graph has none.
    "A": "6, 7\n1, 2\n2, 1\n3, 4\n4, 3\n",
    "graph_indicator": "1\n1\n2\n2\n3\n4\n4\n",
    "graph_labels": "2\n1\n2\n1\n",
    "graph_attributes": "0.5, 1\n1.5, 2\n2.5, 3\n3.5, 4\n",
    "node_labels": "0\n1\n0\n1\n1\n0\n0\n",
    "node_attributes": "1.5\n2\n3\n4\n5\n6\n7\n",
    "edge_labels": "3\n3\n4\n3\n3\n",
    "edge_attributes": "9, 10\n1, 2\n3, 4\n5, 6\n7, 8\n",
}


pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def write(folder, name="my-set", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in {**FILES, **changes}.items():
        if content is not None:
            (folder / f"{name}_{part}.txt").write_text(content)


def load(folder, **options):
    return load_graph_dataset("tudataset", folder, **{"num_folds": 2, **options})


def rows_of(splits):
    """All rows in the order of the files, by the number of nodes and the first feature."""
    return sorted((row for split in splits.values() for row in split), key=lambda row: row["node_feat"][0, 0])


def test_a_set_of_any_name_with_all_its_features(tmp_path):
    write(tmp_path / "graphs" / "raw", name="any.name-1")
    for splits in (load(tmp_path / "graphs"), load(tmp_path, path="graphs"), load(None, path=tmp_path / "graphs")):
        first, second, third, fourth = rows_of(splits)
        assert first["node_feat"].tolist() == [[1.5, 1, 0], [2, 0, 1]] and third["node_feat"].tolist() == [[5, 0, 1]]
        assert first["edge_attr"].tolist() == [[1, 2, 1, 0], [3, 4, 0, 1]] and third["edge_attr"].shape == (0, 4)
        assert fourth["edge_index"].tolist() == [[0], [1]] and fourth["edge_attr"].tolist() == [[9, 10, 1, 0]]
        assert splits["train"].features["y"].names == ["1", "2"]
        assert [row["y"] for row in (first, second, third, fourth)] == [1, 0, 1, 0]


def test_attributes_are_left_out_on_demand(tmp_path):
    write(tmp_path)
    rows = load(tmp_path, node_attributes=False, edge_attributes=False)["train"]
    assert rows[0]["node_feat"].dtype == rows[0]["edge_attr"].dtype == np.int64


def test_attributes_of_graphs_are_targets(tmp_path):
    write(tmp_path)
    targets = [row["y"].tolist() for row in rows_of(load(tmp_path, graph_attributes=True))]
    assert targets == [[0.5, 1], [1.5, 2], [2.5, 3], [3.5, 4]]
    (tmp_path / "my-set_graph_labels.txt").unlink()
    assert [row["y"].tolist() for row in rows_of(load(tmp_path))] == targets
    with pytest.raises(ValueError, match="graph_attributes must be True"):
        load(tmp_path, graph_attributes=False)


def test_a_share_takes_the_place_of_folds():
    labels = np.repeat([0, 1], [40, 20])
    parts = fold_indices(labels, 0, 10, 0.25, 3, test_fraction=0.2)
    counts = {name: np.bincount(labels[rows]).tolist() for name, rows in parts.items()}
    assert counts == {"train": [24, 12], "validation": [8, 4], "test": [8, 4]}
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(60))
    assert fold_indices(labels, 5, 10, None, 3, test_fraction=0.2)["test"].tolist() == parts["test"].tolist()
    targets = fold_indices(np.zeros((20, 2), np.float32), 3, 10, "next_fold", 0)
    assert [len(rows) for rows in targets.values()] == [16, 2, 2]
    with pytest.raises(ValueError, match="validation must be a fraction or None where test_fraction"):
        fold_indices(labels, 0, 10, "next_fold", 3, test_fraction=0.2)
    with pytest.raises(ValueError, match="fraction must be between"):
        fold_indices(labels, 0, 10, None, 3, test_fraction=1.5)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"A": None}, "has no file <NAME>_A.txt; expected layout"),
        ({"graph_indicator": None}, "no file .*my-set_graph_indicator.txt; expected layout"),
        ({"graph_labels": None, "graph_attributes": None}, "no file .*my-set_graph_labels.txt; expected layout"),
        ({"A": "1, 2\n2, 8\n"}, "A.txt is damaged.* row 1 .*between 1 and 7, the number of nodes"),
        ({"A": "1, 2\n2, 1\n2, 3\n"}, "A.txt is damaged.* row 2 .*joins two graphs"),
        ({"graph_indicator": "1\n2\n1\n2\n3\n4\n4\n"}, "graph_indicator.txt is damaged.* row 2 .*do not increase"),
        ({"graph_indicator": "1\n1\n2\n2\n3\n4\n5\n"}, "graph_indicator.txt is damaged.* row 6 .*from 1 to 4"),
        ({"graph_indicator": "1\n1\n2\n2\n4\n4\n4\n"}, "graph_indicator.txt is damaged.* graph 2 .*no nodes"),
        ({"graph_labels": "2, 1\n1, 1\n2, 1\n1, 1\n"}, "graph_labels.txt is damaged.* 2 numbers; expected 1"),
        ({"graph_labels": "2\nred\n2\n1\n"}, "graph_labels.txt is damaged.*'red'.* row 1"),
        ({"node_attributes": "1\n2\n3\n4\n5\nnan\n7\n"}, "node_attributes.txt is damaged.* row 5 .*not finite"),
        ({"node_attributes": "1\n2\n"}, "node_attributes.txt is damaged.* 2 rows; expected 7, the number of nodes"),
        ({"edge_attributes": "1\n2\n"}, "edge_attributes.txt is damaged.* 2 rows; expected 5, the number of edges"),
        ({"edge_attributes": "1\n1, 2\n"}, "edge_attributes.txt is damaged.* row"),
    ],
)
def test_wrong_files_are_named(tmp_path, changes, match):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=match):
        load(tmp_path)


def test_two_sets_in_one_folder_are_refused(tmp_path):
    write(tmp_path)
    write(tmp_path, name="other")
    with pytest.raises(ValueError, match="has both my-set_A.txt and other_A.txt: give a folder of one set"):
        load(tmp_path)
