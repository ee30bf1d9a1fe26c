"""The Long Range Graph Benchmark as PyTorch Geometric keeps it."""

import pickle
import socket

import numpy as np
import pytest
import torch

from modeling_sft.data.graph.readers import load_graph_dataset

PARTS = ("train", "val", "test")


pytest.importorskip("torch_geometric")
pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def molecule(num_nodes, *labels):
    """(x, edge_attr, edge_index) of a path, and labels."""
    edge_index = torch.stack([torch.arange(num_nodes - 1), torch.arange(1, num_nodes)])
    generator = torch.Generator().manual_seed(num_nodes)
    x = torch.randint(0, 5, (num_nodes, 9), generator=generator)
    return x, torch.randint(0, 3, (num_nodes - 1, 3), generator=generator), edge_index, *labels


def superpixels(num_nodes, labels):
    x, edge_attr, edge_index = molecule(num_nodes)
    return x[:, :1].double().expand(-1, 14) / 7, edge_attr[:, :2].float() / 3, edge_index, labels


def write_raw(folder, pyg_name, graphs):
    """One graph more in each part than in the last."""
    raw = folder / pyg_name / "raw"
    raw.mkdir(parents=True)
    for number, part in enumerate(PARTS):
        if pyg_name.endswith("-sp"):
            (raw / f"{part}.pickle").write_bytes(pickle.dumps(graphs[: number + 1]))
        else:
            torch.save(graphs[: number + 1], raw / f"{part}.pt")


def sizes(splits):
    return {name: [int(row["num_nodes"]) for row in rows] for name, rows in splits.items()}


@pytest.mark.parametrize(
    ("name", "pyg_name", "num_targets"),
    [("lrgb_peptides_func", "peptides-func", 10), ("lrgb_peptides_struct", "peptides-struct", 11)],
)
def test_several_labels_or_targets(tmp_path, name, pyg_name, num_targets):
    targets = [torch.full((1, num_targets), float(row)) for row in range(3)]
    graphs = [molecule(num_nodes, y) for num_nodes, y in zip((3, 1, 10), targets)]
    write_raw(tmp_path / name, pyg_name, graphs)
    splits = load_graph_dataset(name, tmp_path)
    assert sizes(splits) == {"train": [3], "validation": [3, 1], "test": [3, 1, 10]}
    for row, (x, edge_attr, edge_index, y) in zip(splits["test"], graphs):
        assert row["node_feat"].dtype == row["edge_attr"].dtype == np.int64
        np.testing.assert_array_equal(row["node_feat"], x)
        np.testing.assert_array_equal(row["edge_attr"], edge_attr)
        np.testing.assert_array_equal(row["edge_index"], edge_index)
        assert row["y"].dtype == np.float32 and row["y"].tolist() == y[0].tolist()


def test_labels_stored_as_integers_are_no_classes_of_nodes(tmp_path):
    write_raw(tmp_path / "lrgb_peptides_func", "peptides-func", [molecule(10, torch.eye(10).long()[:1])] * 3)
    row = load_graph_dataset("lrgb_peptides_func", tmp_path)["train"][0]
    assert row["y"].dtype == np.float32 and row["y"].tolist() == [1.0] + [0.0] * 9


@pytest.mark.parametrize(
    ("name", "pyg_name", "given", "expected", "num_classes"),
    [
        ("pascalvoc_sp", "pascalvoc-sp", [0, 20, 7], [0, 20, 7], 21),
        # Of COCO's 91 numbers, 80 are in use.
        ("coco_sp", "coco-sp", [0, 90, 13], [0, 80, 12], 81),
    ],
)
def test_classes_of_nodes(tmp_path, name, pyg_name, given, expected, num_classes):
    # A list for each graph: PyTorch Geometric renumbers the classes in place.
    write_raw(tmp_path / name, pyg_name, [superpixels(3, list(given)) for _ in range(3)])
    splits = load_graph_dataset(name, tmp_path)
    row = splits["train"][0]
    assert row["node_feat"].shape == (3, 14) and row["edge_attr"].shape == (2, 2)
    assert row["node_feat"].dtype == row["edge_attr"].dtype == np.float32
    assert row["y"].dtype == np.int64 and row["y"].tolist() == expected
    assert splits["train"].features["y"].feature.num_classes == num_classes


def test_links(tmp_path):
    pairs, labels = torch.tensor([[0, 2, 1], [2, 0, 1]]), torch.tensor([1, 1, 0])
    write_raw(tmp_path / "pcqm_contact", "pcqm-contact", [molecule(4, pairs, labels)] * 3)
    row = load_graph_dataset("pcqm_contact", tmp_path)["validation"][1]
    assert row["edge_label_index"].tolist() == pairs.tolist() and row["edge_label"].tolist() == labels.tolist()
    assert row["edge_label_index"].dtype == row["edge_label"].dtype == np.int64 and "y" not in row


def test_processed_files_are_enough(tmp_path):
    from torch_geometric.data import Data
    from torch_geometric.datasets import LRGBDataset

    processed = tmp_path / "lrgb_peptides_struct" / "peptides-struct" / "processed"
    processed.mkdir(parents=True)
    x, edge_attr, edge_index = molecule(5)
    for part in PARTS:
        data = Data(x=x, edge_index=edge_index, edge_attr=edge_attr, y=torch.arange(11.0)[None])
        LRGBDataset.save([data], str(processed / f"{part}.pt"))
    splits = load_graph_dataset("lrgb_peptides_struct", tmp_path)
    assert sizes(splits) == {"train": [5], "validation": [5], "test": [5]}
    assert splits["test"][0]["y"].tolist() == list(range(11))
    (processed / "val.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="val.pt is damaged .*cannot be read"):
        load_graph_dataset("lrgb_peptides_struct", tmp_path)


def test_without_files_and_network(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="(?s)pascalvoc-sp.raw lacks files.*set download to True.*pascalvocsp.zip"):
        load_graph_dataset("pascalvoc_sp", tmp_path)
    assert not list(tmp_path.iterdir())
    # A proxy that nothing answers at.
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, proxy)
    match = "(?s)pascalvoc-sp.raw lacks files.*downloading https.*pascalvocsp.zip.* failed.*expected layout"
    for _ in range(2):
        with pytest.raises(ValueError, match=match):
            load_graph_dataset("pascalvoc_sp", tmp_path, download=True)
    assert socket.getdefaulttimeout() is None


def test_damaged_raw_files_are_named(tmp_path):
    write_raw(tmp_path / "lrgb_peptides_func", "peptides-func", [molecule(3, torch.zeros(1, 10))] * 3)
    (tmp_path / "lrgb_peptides_func" / "peptides-func" / "raw" / "val.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="peptides-func.raw is damaged .*PyTorch Geometric cannot read it"):
        load_graph_dataset("lrgb_peptides_func", tmp_path)
