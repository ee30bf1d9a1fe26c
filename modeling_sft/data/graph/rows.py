"""The schema that all readers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.inputs import check_graph
from ...hub.optional import import_optional

if TYPE_CHECKING:
    from datasets import Dataset, Features


def graph_features(y: Any, node_feat: tuple[int, str], edge_attr: tuple[int, str] | None = None) -> Features:
    """The columns `num_nodes`, `node_feat`, `edge_index`, `edge_attr` (if given) and `y` (if not None).

    Args:
        y: the feature of the labels.
        node_feat, edge_attr: the width and the type, "int64" for categories or "float32".
    """
    datasets = import_optional("datasets", "graphs")
    # Array2D is read by one copy; nested lists of values take far longer. Its first dimension only may vary.
    features: dict[str, Any] = {
        "num_nodes": datasets.Value("int64"),
        "node_feat": datasets.Array2D((None, node_feat[0]), node_feat[1]),
        "edge_index": datasets.Sequence(datasets.Sequence(datasets.Value("int64")), length=2),
    }
    if edge_attr is not None:
        features["edge_attr"] = datasets.Array2D((None, edge_attr[0]), edge_attr[1])
    if y is not None:
        features["y"] = y
    return datasets.Features(features)


def target_feature(num_targets: int) -> Any:
    """The feature of (num_targets,) float32."""
    datasets = import_optional("datasets", "graphs")
    return datasets.Sequence(datasets.Value("float32"), length=num_targets)


def graph_rows(graphs: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None) -> Dataset:
    """Builds the `datasets.Dataset` that all readers return, in memory.

    Args:
        graphs: rows as `inputs_graph_sft` makes them, all with the same columns, widths and types.
        class_names: the names of `y`, where this is a class per graph or node.

    Returns:
        The rows, read as NumPy arrays.

    Raises:
        ValueError: without graphs, or for one that is no valid graph or differs from the first; it is numbered.
    """
    if len(graphs) == 0:
        raise ValueError("graphs is empty; give at least one graph.")
    checked = []
    for number, graph in enumerate(graphs):
        try:
            checked.append(check_graph(graph))
        except ValueError as error:
            raise ValueError(f"Graph {number} (counted from 0): {error}") from error
        if _kinds(checked[-1]) != _kinds(checked[0]):
            raise ValueError(
                f"Graph {number} (counted from 0) has {_kinds(checked[-1])}; expected {_kinds(checked[0])} as in "
                "graph 0."
            )
    features = _features_of(checked[0], class_names)
    dataset = import_optional("datasets", "graphs").Dataset
    columns = {name: [graph[name] for graph in checked] for name in features}
    return dataset.from_dict(columns, features=features).with_format("numpy")


def _kinds(graph: Mapping[str, Any]) -> dict[str, str]:
    """Type and width of each column; the number of nodes or edges is left out, and that of targets is not."""
    kinds = {}
    for name, value in graph.items():
        array = np.asarray(value)
        width = array.shape[1:] if name in ("node_feat", "edge_attr", "pos") else (array.ndim,)
        if name == "y" and array.dtype.kind == "f":
            width = array.shape
        kinds[name] = f"{array.dtype} {width}"
    return kinds


def _features_of(graph: Mapping[str, Any], class_names: Sequence[str] | None) -> Features:
    datasets = import_optional("datasets", "graphs")

    def table(name: str) -> tuple[int, str]:
        return graph[name].shape[1], str(graph[name].dtype)

    y: Any = None
    if "y" in graph:
        label = np.asarray(graph["y"])
        if label.dtype.kind == "f":
            y = target_feature(len(label))
        else:
            y = datasets.Value("int64") if class_names is None else datasets.ClassLabel(names=list(class_names))
            y = datasets.Sequence(y) if label.ndim else y
    features = graph_features(y, table("node_feat"), table("edge_attr") if "edge_attr" in graph else None)
    if "pos" in graph:
        features["pos"] = datasets.Array2D((None, graph["pos"].shape[1]), "float32")
    if "edge_label_index" in graph:
        features["edge_label_index"] = features["edge_index"]
        features["edge_label"] = datasets.Sequence(datasets.Value("int64"))
    return features
