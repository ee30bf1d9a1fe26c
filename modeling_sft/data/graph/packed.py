"""Many graphs in a few arrays, and their rows in the cache of `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cache import cached_rows
from ..files import damaged

if TYPE_CHECKING:
    from datasets import Dataset, Features


class PackedGraphs(NamedTuple):
    """Graph i has the nodes `node_offset[i]:node_offset[i + 1]` and edges `edge_offset[i]:edge_offset[i + 1]`."""

    node_feat: NDArray[Any]
    """(N, C) int64 or float32."""
    node_offset: NDArray[Any]
    """(n + 1,) integer."""
    edge_index: NDArray[Any]
    """(2, E) integer, counted within each graph."""
    edge_offset: NDArray[Any]
    """(n + 1,) integer."""
    y: NDArray[Any]
    """(n,) integer or (n, T) float32."""
    edge_attr: NDArray[Any] | None = None
    """(E, C) int64 or float32."""
    part: NDArray[Any] | None = None
    """(n,) number of the split of each graph."""


ReadPacked = Callable[..., PackedGraphs]
"""A function that is called with files, and with options by name."""


def check_packed(path: Path, graphs: PackedGraphs) -> PackedGraphs:
    """Checks packed graphs, and returns them.

    Raises:
        ValueError: if the arrays do not fit each other, an edge is out of range or a graph has no node.
    """
    num_graphs = len(graphs.y)
    if num_graphs == 0:
        raise damaged(path, "it has no graphs")
    for name, array in (("node_feat", graphs.node_feat), ("edge_index", graphs.edge_index.T)):
        if array.ndim != 2:
            raise damaged(path, f"{name} has {array.ndim} dimensions; expected 2")
    if graphs.edge_index.shape[0] != 2 or graphs.edge_index.dtype.kind not in "iu":
        raise damaged(path, f"edge_index has shape {graphs.edge_index.shape}; expected (2, edges) of integers")
    num_edges = graphs.edge_index.shape[1]
    for name, offset, total in (
        ("node_offset", graphs.node_offset, len(graphs.node_feat)),
        ("edge_offset", graphs.edge_offset, num_edges),
    ):
        if offset.shape != (num_graphs + 1,) or offset.dtype.kind not in "iu":
            raise damaged(path, f"{name} has shape {offset.shape}; expected {(num_graphs + 1,)} of integers")
        if offset[0] != 0 or offset[-1] != total or (np.diff(offset.astype(np.int64)) < 0).any():
            raise damaged(path, f"{name} does not increase from 0 to {total}")
    if graphs.edge_attr is not None and (graphs.edge_attr.ndim != 2 or len(graphs.edge_attr) != num_edges):
        raise damaged(path, f"the features of edges have shape {graphs.edge_attr.shape}; expected {num_edges} rows")
    sizes = np.diff(graphs.node_offset.astype(np.int64))
    if (sizes == 0).any():
        raise damaged(path, f"graph {int(np.argmin(sizes))} (counted from 0) has no nodes")
    num_edges_of: NDArray[Any] = np.diff(graphs.edge_offset.astype(np.int64))
    owner = np.repeat(np.arange(num_graphs), num_edges_of)
    wrong = ((graphs.edge_index < 0) | (graphs.edge_index >= sizes[owner])).any(axis=0)
    if wrong.any():
        raise damaged(path, f"edge_index of graph {owner[np.argmax(wrong)]} (counted from 0) is out of range")
    return graphs


def packed_rows(
    read: ReadPacked,
    split: str,
    features: Features,
    files: Sequence[Path],
    part: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Makes one row of each graph, and keeps the rows in the cache (see `cached_rows`).

    Args:
        read: a function of a module, called as `read(files, **options)`.
        split: name of the split, for the progress bar.
        features: see `graph_features`.
        files: the files to read the graphs from.
        part: the split whose graphs to take; None takes all graphs.
        options: options for `read`.
    """
    rows = cached_rows(
        _generate, split, features, files, read=read, part=part, options=tuple(sorted((options or {}).items()))
    )
    return rows.with_format("numpy")


def _generate(
    files: Sequence[Path], read: ReadPacked, part: int | None, options: Sequence[tuple[str, Any]]
) -> Iterator[dict[str, Any]]:
    graphs = read(files, **dict(options))
    for number, y in enumerate(graphs.y):
        if part is not None and graphs.part is not None and graphs.part[number] != part:
            continue
        nodes = slice(graphs.node_offset[number], graphs.node_offset[number + 1])
        edges = slice(graphs.edge_offset[number], graphs.edge_offset[number + 1])
        row = {
            "num_nodes": int(nodes.stop) - int(nodes.start),
            "node_feat": graphs.node_feat[nodes],
            "edge_index": graphs.edge_index[:, edges].astype(np.int64),
            "y": y,
        }
        if graphs.edge_attr is not None:
            row["edge_attr"] = graphs.edge_attr[edges]
        yield row
