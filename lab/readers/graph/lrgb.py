"""Sets of the Long Range Graph Benchmark (LRGB, arXiv 2206.08164), through PyTorch Geometric."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from modeling_sft.data.cache import cached_rows
from modeling_sft.data.files import damaged
from modeling_sft.data.graph.rows import graph_features, target_feature
from modeling_sft.graph.inputs import graph_from_pyg
from modeling_sft.hub.optional import import_optional

if TYPE_CHECKING:
    from datasets import Dataset, Features

LAYOUT = """expected layout, that of torch_geometric.datasets.LRGBDataset:
  DATA_DIR/{name}/{pyg_name}/raw/train.{kind}, val.{kind}, test.{kind}
the content of {url} (its folder {archive}, renamed to raw)."""

OPTIONS = ("download",)
SPLITS = {"train": "train", "validation": "val", "test": "test"}
TIMEOUT_SECONDS = 30


class LRGBSet(NamedTuple):
    """The names and the contents of a set."""

    pyg_name: str
    node_feat: tuple[int, str]
    edge_attr: tuple[int, str]
    num_targets: int = 0
    """Number of labels or targets of a graph."""
    num_node_classes: int = 0
    """Number of classes of nodes; a set without targets and classes is for link prediction."""


SETS = {
    "lrgb_peptides_func": LRGBSet("peptides-func", (9, "int64"), (3, "int64"), num_targets=10),
    "lrgb_peptides_struct": LRGBSet("peptides-struct", (9, "int64"), (3, "int64"), num_targets=11),
    "pascalvoc_sp": LRGBSet("pascalvoc-sp", (14, "float32"), (2, "float32"), num_node_classes=21),
    "coco_sp": LRGBSet("coco-sp", (14, "float32"), (2, "float32"), num_node_classes=81),
    "pcqm_contact": LRGBSet("pcqm-contact", (9, "int64"), (3, "int64")),
}


def lrgb_reader(name: str) -> Callable[..., dict[str, Dataset]]:
    """The reader of one of `SETS`."""

    def read(data_dir: str | os.PathLike[str] | None, download: bool = False) -> dict[str, Dataset]:
        """Reads the official splits.

        PyTorch Geometric can download absent files, but it does not verify the server's certificate and unpickles what
        it gets, so it downloads on demand only. Pickles in the files are trusted.

        Args:
            data_dir: holds, or will hold, the folder of the set.
            download: whether absent files are downloaded.

        Raises:
            ValueError: for files that are damaged, or absent and not downloaded.
            ImportError: if PyTorch Geometric is not installed.
        """
        pyg_name = SETS[name].pyg_name
        pyg = import_optional("torch_geometric.datasets", "graphs").LRGBDataset
        layout = LAYOUT.format(
            name=name,
            pyg_name=pyg_name,
            url=pyg.urls[pyg_name],
            archive=pyg.dwnld_file_name[pyg_name],
            kind="pickle" if pyg_name.endswith("-sp") else "pt",
        )
        if data_dir is None:
            raise ValueError(f"data_dir is needed for {name}; {layout}")
        root = Path(data_dir) / name
        processed = {split: root / pyg_name / "processed" / f"{part}.pt" for split, part in SPLITS.items()}
        if not all(path.is_file() for path in processed.values()):
            _process(pyg, root, pyg_name, download, layout)
        features = _features(SETS[name])
        return {
            split: cached_rows(_generate, split, features, [path], has_targets=SETS[name].num_targets > 0).with_format(
                "numpy"
            )
            for split, path in processed.items()
        }

    return read


def _process(pyg: Any, root: Path, pyg_name: str, download: bool, layout: str) -> None:
    """Lets PyTorch Geometric make its processed files from the raw ones, which it downloads if they are absent."""
    raw = root / pyg_name / "raw"
    kind = "pickle" if pyg_name.endswith("-sp") else "pt"
    complete = all((raw / f"{part}.{kind}").is_file() for part in SPLITS.values())
    if not complete and not download:
        raise ValueError(f"{raw} lacks files of the set: get them, or set download to True; {layout}")
    timeout = socket.getdefaulttimeout()
    # Set a timeout: a network that swallows packets would otherwise block forever.
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        pyg(str(root), pyg_name, split="val")
    # The network, archives and pickles may raise almost any error, so catch them all.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if complete:
            raise damaged(raw, f"PyTorch Geometric cannot read it ({reason})") from error
        raise ValueError(
            f"{raw} lacks files of the set, and downloading {pyg.urls[pyg_name]} failed ({reason}). Connect to the "
            f"network, or fetch that file elsewhere; remove an incomplete archive from {root}. {layout}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _generate(files: Sequence[Path], has_targets: bool) -> Iterator[dict[str, Any]]:
    path = files[0]
    in_memory = import_optional("torch_geometric.data", "graphs").InMemoryDataset
    graphs = in_memory()
    try:
        # Load the file safely first: PyTorch Geometric would run the code of a pickle with classes other than its own.
        torch.load(path, weights_only=True)
        graphs.load(str(path))
    # A damaged file may raise errors of torch, pickle and zip, so catch them all.
    except Exception as error:
        raise damaged(path, f"it cannot be read ({type(error).__name__}: {error}); remove it") from error
    for number, graph in enumerate(graphs):
        if has_targets:
            # Make labels floats: a file may store them as integers, which would be taken for classes of nodes.
            graph.y = graph.y.float()
        try:
            yield graph_from_pyg(graph)
        except ValueError as error:
            raise damaged(path, f"graph {number} (counted from 0): {error}") from error


def _features(names: LRGBSet) -> Features:
    datasets = import_optional("datasets", "graphs")
    y = target_feature(names.num_targets) if names.num_targets else None
    if names.num_node_classes:
        y = datasets.Sequence(datasets.ClassLabel(num_classes=names.num_node_classes))
    features = graph_features(y, names.node_feat, names.edge_attr)
    if y is None:
        features["edge_label_index"] = features["edge_index"]
        features["edge_label"] = datasets.Sequence(datasets.Value("int64"))
    return features
