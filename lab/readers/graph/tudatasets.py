"""Sets of TUDataset: one class per graph, evaluated by cross-validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modeling_sft.data.files import damaged, existing_file
from modeling_sft.data.graph.degrees import degree_features
from modeling_sft.data.graph.packed import PackedGraphs, ReadPacked, check_packed
from modeling_sft.data.graph.tudataset import split_packed
from modeling_sft.data.graph.tudataset_texts import read_tu_class_names, read_tu_texts, tu_files
from modeling_sft.hub.values import require_integer

from ..contents import check_labels, read_archive

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, one of:
  DATA_DIR/tudatasets/{archive}.npz
      with label (graphs,), node_tag (nodes,), node_offset, edge_index (2, edges), both directions, and edge_offset
  DATA_DIR/{name}/{name}_A.txt, {name}_graph_indicator.txt, {name}_graph_labels.txt and, where there are some,
      {name}_node_labels.txt, {name}_node_attributes.txt, {name}_edge_labels.txt
      of https://chrsmrrs.github.io/datasets; the folder may be {name}/raw, and be in DATA_DIR/tudatasets."""

OPTIONS = ("fold", "num_folds", "validation", "seed", "max_degree", "node_attributes")


def tu_reader(name: str) -> Callable[..., dict[str, Dataset]]:
    """The reader of the set that TUDataset has under this name."""

    def read(
        data_dir: str | os.PathLike[str] | None,
        fold: int = 0,
        num_folds: int = 10,
        validation: str | float | None = None,
        seed: int = 0,
        max_degree: int = 135,
        node_attributes: bool = False,
    ) -> dict[str, Dataset]:
        """Reads the graphs; one fold is the test split, the others are the training and validation split.

        Args:
            data_dir: holds the files.
            fold, num_folds, validation, seed: see `fold_indices`.
            max_degree: the largest category where nodes have no features and get their degrees as categories.
            node_attributes: whether the features are the continuous attributes, followed by one column for each label
                of nodes, instead of the labels as categories.

        Raises:
            ValueError: for absent and damaged files, and options out of range.
        """
        require_integer("max_degree", max_degree, 1)
        files, read_files, class_names = _source(name, data_dir)
        options = {"max_degree": max_degree, "node_attributes": bool(node_attributes)}
        splits = {"fold": fold, "num_folds": num_folds, "validation": validation, "seed": seed}
        # Replace hyphens, as the name of a split must not have one.
        return split_packed(read_files, name.replace("-", "_"), files, class_names, options, splits)

    return read


def _source(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[list[Path], ReadPacked, list[str]]:
    """The files, the function that reads them, and the names of the classes."""
    layout = LAYOUT.format(name=name, archive=name.replace("-", ""))
    if data_dir is None:
        raise ValueError(f"data_dir is needed for {name.lower().replace('-', '_')}; {layout}")
    for parent in (Path(data_dir), Path(data_dir) / "tudatasets"):
        for folder in (parent / name, parent / name / "raw"):
            if (folder / f"{name}_A.txt").is_file():
                files = tu_files(folder, name, layout)
                return files, read_tu_texts, read_tu_class_names(files)
    path = existing_file(Path(data_dir) / "tudatasets" / f"{name.replace('-', '')}.npz", layout)
    labels = read_archive(path, ("label",))["label"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise damaged(path, f"label has shape {labels.shape} and type {labels.dtype}; expected (graphs,) of integers")
    return [path], _read_archive, [str(number) for number in range(int(labels.max()) + 1)]


def _read_archive(files: Sequence[Path], max_degree: int, node_attributes: bool) -> PackedGraphs:
    path = files[0]
    if node_attributes:
        raise ValueError(f"node_attributes must be False for {path}, which has none; the official files may.")
    archive = read_archive(path, ("label", "node_tag", "node_offset", "edge_index", "edge_offset"))
    label, tag = archive["label"].astype(np.int64), archive["node_tag"]
    check_labels(path, "label", label, (len(label),), len(label))
    if tag.ndim != 1 or tag.dtype.kind not in "iu" or (tag.size and tag.min() < 0):
        raise damaged(path, f"node_tag has shape {tag.shape} and type {tag.dtype}; expected (nodes,) from 0 on")
    graphs = PackedGraphs(
        node_feat=tag.astype(np.int64)[:, None],
        node_offset=archive["node_offset"],
        edge_index=archive["edge_index"],
        edge_offset=archive["edge_offset"],
        y=label,
    )
    check_packed(path, graphs)
    # If all nodes have the same label, the set has no labels of nodes, so degrees replace them.
    return graphs if (tag != tag[0]).any() else with_degrees(graphs, max_degree)


def with_degrees(graphs: PackedGraphs, max_degree: int) -> PackedGraphs:
    """The same graphs, with the degrees of the nodes as their features."""
    start = np.repeat(graphs.node_offset[:-1], np.diff(graphs.edge_offset))
    degrees = degree_features(graphs.edge_index + start, len(graphs.node_feat), max_degree)
    return graphs._replace(node_feat=degrees)
