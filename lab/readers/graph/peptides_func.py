"""Peptides-func of the Long Range Graph Benchmark, as arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modeling_sft.data.files import damaged, dataset_folder, existing_file
from modeling_sft.data.graph.packed import PackedGraphs, check_packed, packed_rows
from modeling_sft.data.graph.rows import graph_features, target_feature

from ..contents import check_labels, read_archive

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, made from the molecules of https://github.com/vijaydwivedi75/lrgb:
  DATA_DIR/peptides_func/graphs.npz
with node_feat (nodes, 9), node_offset, edge_index (2, bonds), each bond once, edge_feat (bonds, 3), edge_offset,
label (graphs, 10) and split (graphs,), 0 for train, 1 for validation and 2 for test."""

SPLITS = ("train", "validation", "test")

# The functions stand in the order of the official labels.
PEPTIDES_FUNC_TARGETS = (
    "antifungal",
    "cell_cell_communication",
    "anticancer",
    "drug_delivery_vehicle",
    "antimicrobial",
    "antiviral",
    "antihypertensive",
    "antibacterial",
    "antiparasitic",
    "toxic",
)


def peptides_func_target_names(**options: Any) -> tuple[str, ...]:
    """The functions of a peptide, in the order of the targets."""
    return PEPTIDES_FUNC_TARGETS


def read_peptides_func(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """10,873 / 2,331 / 2,331 peptides in the official split, each with 10 labels of 0 or 1.

    Raises:
        ValueError: for absent and damaged files.
    """
    path = existing_file(dataset_folder("peptides_func", data_dir, LAYOUT) / "graphs.npz", LAYOUT)
    features = graph_features(target_feature(len(PEPTIDES_FUNC_TARGETS)), (9, "int64"), (3, "int64"))
    return {split: packed_rows(_read, split, features, [path], part) for part, split in enumerate(SPLITS)}


def _read(files: Sequence[Path]) -> PackedGraphs:
    path = files[0]
    names = ("node_feat", "node_offset", "edge_index", "edge_feat", "edge_offset", "label", "split")
    archive = read_archive(path, names)
    bonds, bond_feat, label = archive["edge_index"], archive["edge_feat"], archive["label"]
    for name, array, width in (("node_feat", archive["node_feat"], 9), ("edge_feat", bond_feat, 3)):
        if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "iu":
            raise damaged(path, f"{name} has shape {array.shape}; expected {width} columns of integers")
    check_labels(path, "label", label, (len(label), len(PEPTIDES_FUNC_TARGETS)), 2)
    check_labels(path, "split", archive["split"], (len(label),), len(SPLITS))
    if bonds.ndim != 2 or bonds.shape != (2, len(bond_feat)):
        raise damaged(path, f"edge_index has shape {bonds.shape}; expected (2, {len(bond_feat)})")
    # Put a bond and its reverse next to each other, as in OGB.
    edge_index = np.stack([bonds, bonds[::-1]], axis=-1).reshape(2, -1)
    graphs = PackedGraphs(
        node_feat=archive["node_feat"].astype(np.int64),
        node_offset=archive["node_offset"],
        edge_index=edge_index,
        edge_offset=2 * archive["edge_offset"].astype(np.int64),
        y=label.astype(np.float32),
        edge_attr=np.repeat(bond_feat, 2, axis=0).astype(np.int64),
        part=archive["split"],
    )
    return check_packed(path, graphs)
