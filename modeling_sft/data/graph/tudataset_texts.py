"""The text files of TUDataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..files import damaged, existing_file
from .degrees import degree_features
from .packed import PackedGraphs, check_packed

LABELS, TARGETS = "graph_labels", "graph_attributes"
OPTIONAL_PARTS = (LABELS, TARGETS, "node_labels", "node_attributes", "edge_labels", "edge_attributes")


def tu_files(folder: Path, name: str, layout: str) -> list[Path]:
    """The files of a set, of which those of edges and graph indicators must exist.

    Raises:
        ValueError: if one of these is absent, or both labels and attributes of graphs are; it ends with `layout`.
    """
    files = [existing_file(folder / f"{name}_{part}.txt", layout) for part in ("A", "graph_indicator")]
    optional = {part: path for part in OPTIONAL_PARTS if (path := folder / f"{name}_{part}.txt").is_file()}
    if TARGETS not in optional:
        existing_file(folder / f"{name}_{LABELS}.txt", layout)
    return [*files, *optional.values()]


def read_tu_class_names(files: Sequence[Path]) -> list[str]:
    """The distinct labels of graphs in ascending order.

    Raises:
        ValueError: for a file that is absent or cannot be read.
    """
    return [str(label) for label in np.unique(_labels(_parts(files)))]


def read_tu_texts(
    files: Sequence[Path],
    max_degree: int,
    node_attributes: bool | None,
    edge_attributes: bool | None = False,
    graph_attributes: bool = False,
) -> PackedGraphs:
    """Reads the files of `tu_files`.

    The smallest label of nodes, and of edges, becomes 0, so that labels are categories from 0 on.

    Args:
        files: see `tu_files`.
        max_degree: the largest category where nodes have no features and get their degrees as categories.
        node_attributes, edge_attributes: whether the features are the continuous attributes, followed by one column
            for each label, in place of the labels as categories; None for wherever there is a file of them.
        graph_attributes: whether `y` holds the attributes of graphs, (graphs, T) float32, in place of the class.

    Raises:
        ValueError: for files that are absent, cannot be read or do not fit each other; the message names the file, and
            the row (counted from 0) where one row is wrong.
    """
    parts = _parts(files)
    edge_path, graph_path = files[:2]
    y = _targets(parts, graph_attributes)
    owner = _numbers(graph_path, np.int64)[:, 0] - 1
    _require(
        graph_path,
        (np.diff(owner, prepend=0) >= 0) & (owner < len(y)),
        f"do not increase from 1 to {len(y)}, the number of graphs",
    )
    edges = _numbers(edge_path, np.int64, empty_width=2) - 1
    if edges.shape[1] != 2:
        raise damaged(edge_path, f"its lines have {edges.shape[1]} numbers; expected 2")
    inside = ((edges >= 0) & (edges < len(owner))).all(axis=1)
    _require(edge_path, inside, f"are not between 1 and {len(owner)}, the number of nodes")
    graph_of_edge = owner[edges[:, 0]]
    _require(edge_path, graph_of_edge == owner[edges[:, 1]], "are an edge that joins two graphs")

    order = np.argsort(graph_of_edge, kind="stable")
    node_offset = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(y)))])
    node_feat = _features(parts, "node", len(owner), node_attributes)
    if node_feat is None:
        node_feat = degree_features(edges.T, len(owner), max_degree)
    edge_attr = _features(parts, "edge", len(edges), edge_attributes)
    graphs = PackedGraphs(
        node_feat=node_feat,
        node_offset=node_offset,
        edge_index=edges[order].T - node_offset[graph_of_edge[order]],
        edge_offset=np.concatenate([[0], np.cumsum(np.bincount(graph_of_edge, minlength=len(y)))]),
        y=y,
        edge_attr=None if edge_attr is None else edge_attr[order],
    )
    return check_packed(graph_path, graphs)


def _parts(files: Sequence[Path]) -> dict[str, Path]:
    return {part: path for path in files for part in OPTIONAL_PARTS if path.name.endswith(f"_{part}.txt")}


def _targets(parts: Mapping[str, Path], graph_attributes: bool) -> NDArray[Any]:
    if graph_attributes:
        return _attributes(parts, "graph")
    return np.unique(_labels(parts), return_inverse=True)[1].astype(np.int64)


def _labels(parts: Mapping[str, Path]) -> NDArray[np.int64]:
    if LABELS not in parts:
        raise ValueError("graph_attributes must be True for this data set: it has no file of labels of graphs.")
    path = parts[LABELS]
    labels = _numbers(path, np.int64)
    if labels.shape[1] != 1:
        raise damaged(path, f"its lines have {labels.shape[1]} numbers; expected 1, the class of a graph")
    return labels[:, 0]


def _features(
    parts: Mapping[str, Path], kind: str, num_rows: int, with_attributes: bool | None
) -> NDArray[np.int64] | NDArray[np.float32] | None:
    """Of nodes or edges: categories, numbers, or None where there are neither."""
    labels = _categories(parts[f"{kind}_labels"], num_rows) if f"{kind}_labels" in parts else None
    if with_attributes is None:
        with_attributes = f"{kind}_attributes" in parts
    if not with_attributes:
        return labels
    attributes = _attributes(parts, kind, num_rows)
    if labels is None:
        return attributes
    # Beside numbers, categories are one-hot: each value of each label gets a column.
    one_hot = [np.eye(column.max(initial=0) + 1, dtype=np.float32)[column] for column in labels.T]
    return np.concatenate([attributes, *one_hot], axis=1)


def _attributes(parts: Mapping[str, Path], kind: str, num_rows: int | None = None) -> NDArray[np.float32]:
    name = f"{kind}_attributes"
    if name not in parts:
        raise ValueError(f"{name} must be False for this data set: it has no file of them.")
    numbers = _numbers(parts[name], np.float32, empty_width=None if kind == "graph" else 1)
    _require(parts[name], np.isfinite(numbers).all(axis=1), "are not finite")
    if num_rows not in (None, len(numbers)):
        raise damaged(parts[name], f"it has {len(numbers)} rows; expected {num_rows}, the number of {kind}s")
    return numbers


def _categories(path: Path, num_rows: int) -> NDArray[np.int64]:
    labels = _numbers(path, np.int64, empty_width=1)
    if len(labels) != num_rows:
        raise damaged(path, f"it has {len(labels)} rows; expected {num_rows}")
    return labels - labels.min(axis=0) if num_rows else labels


def _require(path: Path, is_right: ArrayLike, problem: str) -> None:
    if not np.all(is_right):
        raise damaged(path, f"the numbers in row {int(np.argmin(is_right))} (counted from 0) {problem}")


def _numbers(path: Path, dtype: Any, empty_width: int | None = None) -> NDArray[Any]:
    """Rows of numbers; an empty file gives (0, empty_width), or is an error without `empty_width`."""
    if path.stat().st_size == 0:
        if empty_width is None:
            raise damaged(path, "it is empty")
        return np.empty((0, empty_width), dtype=dtype)
    try:
        # Numbers beyond float32 become infinite, which is refused.
        with np.errstate(over="ignore"):
            numbers = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2, comments=None)
    except (ValueError, OverflowError) as error:
        raise damaged(path, f"it is no table of numbers ({error})") from error
    if numbers.size == 0:
        raise damaged(path, "it has no rows")
    return numbers
