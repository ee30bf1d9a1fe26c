"""The text files of TUDataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling_sft.data.files import damaged

from .degrees import degree_features
from .packed import PackedGraphs, check_packed


def read_tu_class_names(path: Path) -> list[str]:
    """The distinct labels of graphs in ascending order.

    Raises:
        ValueError: for a file that cannot be read.
    """
    return [str(label) for label in np.unique(_numbers(path, np.int64))]


def read_tu_texts(files: Sequence[Path], max_degree: int, node_attributes: bool) -> PackedGraphs:
    """Reads the files of edges, graph indicators and graph labels, in this order, and any further files.

    The smallest label of nodes, and of edges, becomes 0, so that labels are categories from 0 on.

    Raises:
        ValueError: for files that cannot be read or do not fit each other.
    """
    edge_path, graph_path, label_path = files[:3]
    others = {part: path for path in files[3:] for part in PARTS if path.name.endswith(f"_{part}.txt")}
    classes, y = np.unique(_numbers(label_path, np.int64)[:, 0], return_inverse=True)
    owner = _numbers(graph_path, np.int64)[:, 0] - 1
    if (np.diff(owner) < 0).any() or owner[0] < 0 or owner[-1] >= len(y):
        raise damaged(graph_path, f"graph indicators do not increase from 1 to {len(y)}, the number of graphs")
    edges = _numbers(edge_path, np.int64, empty_width=2) - 1
    if edges.shape[1] != 2:
        raise damaged(edge_path, f"its lines have {edges.shape[1]} numbers; expected 2")
    if edges.size and (edges.min() < 0 or edges.max() >= len(owner)):
        raise damaged(edge_path, f"it has nodes that are not between 1 and {len(owner)}")
    graph_of_edge = owner[edges[:, 0]]
    if (graph_of_edge != owner[edges[:, 1]]).any():
        row = int(np.argmax(graph_of_edge != owner[edges[:, 1]]))
        raise damaged(edge_path, f"the edge in row {row} (counted from 0) joins two graphs")

    order = np.argsort(graph_of_edge, kind="stable")
    node_offset = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(y)))])
    edge_attr = None
    if "edge_labels" in others:
        edge_attr = _categories(others["edge_labels"], len(edges))[order]
    graphs = PackedGraphs(
        node_feat=_node_features(others, edges.T, len(owner), max_degree, node_attributes),
        node_offset=node_offset,
        edge_index=edges[order].T - node_offset[graph_of_edge[order]],
        edge_offset=np.concatenate([[0], np.cumsum(np.bincount(graph_of_edge, minlength=len(y)))]),
        y=y.astype(np.int64),
        edge_attr=edge_attr,
    )
    return check_packed(edge_path, graphs)


PARTS = ("node_labels", "node_attributes", "edge_labels")


def _node_features(
    others: dict[str, Path], edge_index: NDArray[np.int64], num_nodes: int, max_degree: int, node_attributes: bool
) -> NDArray[Any]:
    labels = _categories(others["node_labels"], num_nodes) if "node_labels" in others else None
    if not node_attributes:
        return degree_features(edge_index, num_nodes, max_degree) if labels is None else labels
    if "node_attributes" not in others:
        raise ValueError("node_attributes must be False for this data set: it has no file of them.")
    path = others["node_attributes"]
    attributes = _numbers(path, np.float32)
    if len(attributes) != num_nodes:
        raise damaged(path, f"it has {len(attributes)} rows; expected one for each of the {num_nodes} nodes")
    if labels is None:
        return attributes
    # Beside numbers, categories are one-hot: each value of each label gets a column.
    one_hot = [np.eye(column.max() + 1, dtype=np.float32)[column] for column in labels.T]
    return np.concatenate([attributes, *one_hot], axis=1)


def _categories(path: Path, num_rows: int) -> NDArray[np.int64]:
    labels = _numbers(path, np.int64, empty_width=1)
    if len(labels) != num_rows:
        raise damaged(path, f"it has {len(labels)} rows; expected {num_rows}")
    return labels - labels.min(axis=0) if num_rows else labels


def _numbers(path: Path, dtype: Any, empty_width: int | None = None) -> NDArray[Any]:
    """Rows of numbers; an empty file gives (0, empty_width), or is an error without `empty_width`."""
    if path.stat().st_size == 0:
        if empty_width is None:
            raise damaged(path, "it is empty")
        return np.empty((0, empty_width), dtype=dtype)
    try:
        numbers = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2, comments=None)
    except (ValueError, OverflowError) as error:
        raise damaged(path, f"it is no table of numbers ({error})") from error
    if numbers.size == 0:
        raise damaged(path, "it has no rows")
    if not np.isfinite(numbers).all():
        raise damaged(path, "it holds numbers that are not finite")
    return numbers
