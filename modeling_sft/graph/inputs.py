"""Rows from graphs of other libraries: PyG, networkx and the Hub."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("num_nodes", "node_feat", "edge_index", "edge_attr", "y", "pos", "edge_label_index", "edge_label")
"""All columns that a row may have."""


def check_graph(row: Mapping[str, Any]) -> dict[str, Any]:
    """A graph in the types of the schema.

    Args:
        row: `node_feat` (n, C) or (n,) of numbers, `edge_index` (2, E) of integers and, where there are some,
            `num_nodes`, `edge_attr` (E, C) or (E,), `y` (an integer, (T,) of floats or (n,) of integers), `pos` (n, D)
            and, for link prediction, `edge_label_index` (2, M) and `edge_label` (M,). None counts as absent, and other
            keys are left out.

    Returns:
        `num_nodes` int; `node_feat` and `edge_attr` int64 (categories) or float32; `edge_index` int64; `y` an int,
        int64 (n,) or float32 (T,); `pos` float32; `edge_label_index` and `edge_label` int64.

    Raises:
        ValueError: for a graph without nodes, edges out of range, and shapes and types that do not fit.
    """
    given = {name: row[name] for name in COLUMNS if name in row and row[name] is not None}
    if "node_feat" not in given:
        raise ValueError("node_feat is absent; give features of the nodes, such as `degree_features`.")
    node_feat = _table("node_feat", given["node_feat"])
    num_nodes = int(given.get("num_nodes", len(node_feat)))
    if num_nodes < 1:
        raise ValueError("num_nodes is 0: a graph needs at least one node; leave empty graphs out.")
    _check_rows("node_feat", node_feat, num_nodes, "nodes")
    edge_index = _edges("edge_index", given.get("edge_index", ()), num_nodes)
    graph: dict[str, Any] = {"num_nodes": num_nodes, "node_feat": node_feat, "edge_index": edge_index}
    if "edge_attr" in given:
        graph["edge_attr"] = _table("edge_attr", given["edge_attr"])
        _check_rows("edge_attr", graph["edge_attr"], edge_index.shape[1], "edges of edge_index")
    if "y" in given:
        graph["y"] = _label(given["y"], num_nodes)
    if "pos" in given:
        graph["pos"] = _table("pos", given["pos"]).astype(np.float32)
        _check_rows("pos", graph["pos"], num_nodes, "nodes")
    if "edge_label_index" in given:
        graph["edge_label_index"] = _edges("edge_label_index", given["edge_label_index"], num_nodes)
        num_pairs = graph["edge_label_index"].shape[1]
        labels = _array("edge_label", given.get("edge_label", np.ones(num_pairs, np.int64)))
        if labels.shape != (num_pairs,):
            raise ValueError(f"edge_label has shape {labels.shape}; expected ({num_pairs},) as edge_label_index.")
        graph["edge_label"] = labels.astype(np.int64)
    return graph


def graph_from_pyg(data: Any) -> dict[str, Any]:
    """A row from a `torch_geometric.data.Data`, or anything with its attributes.

    Args:
        data: has `edge_index` (2, E) and `x` (n, C) (or `node_feat`), and, where there are some, `edge_attr`, `y`,
            `pos`, `num_nodes`, `edge_label_index` and `edge_label`: tensors or arrays. `y` of one integer is the class
            of the graph, a row (1, T) the targets of the graph, and (n,) integers are the classes of the nodes.

    Returns:
        See `check_graph`.

    Raises:
        ValueError: as `check_graph`.
    """
    row = {name: getattr(data, name, None) for name in COLUMNS}
    features = getattr(data, "x", None)
    row["node_feat"] = row["node_feat"] if features is None else features
    return check_graph(row)


def graphs_from_pyg_batch(batch: Any) -> list[dict[str, Any]]:
    """The rows from a `torch_geometric.data.Batch`.

    Raises:
        ValueError: for something else, and as `check_graph`.
    """
    if not hasattr(batch, "to_data_list"):
        raise ValueError(f"batch must be a torch_geometric.data.Batch; got {type(batch).__name__}.")
    return [graph_from_pyg(data) for data in batch.to_data_list()]


def graph_from_networkx(
    graph: Any, node_attributes: Sequence[str], edge_attributes: Sequence[str] = (), y: Any = None
) -> dict[str, Any]:
    """A row from a networkx graph; its nodes are numbered in their order.

    Args:
        graph: a `networkx.Graph`; undirected edges give both directions, one after the other; directed ones that which
            they have.
        node_attributes, edge_attributes: names of attributes that all nodes or edges have, numbers or lists of them,
            put side by side.
        y: the label; see `check_graph`.

    Returns:
        See `check_graph`.

    Raises:
        ValueError: for an absent attribute, and as `check_graph`.
    """
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    pairs, edge_rows = [], []
    for source, target, attributes in graph.edges(data=True):
        ends = (numbers[source], numbers[target])
        # A loop is its own reverse.
        directions = [ends] if graph.is_directed() or source == target else [ends, ends[::-1]]
        pairs += directions
        edge_rows += [_attributes(attributes, edge_attributes, f"edge {source!r}, {target!r}")] * len(directions)
    node_rows = [_attributes(data, node_attributes, f"node {node!r}") for node, data in graph.nodes(data=True)]
    return check_graph(
        {
            "num_nodes": len(numbers),
            "node_feat": np.array(node_rows) if node_attributes else None,
            "edge_index": np.array(pairs, dtype=np.int64).reshape(-1, 2).T,
            "edge_attr": (np.array(edge_rows) if edge_rows else None) if edge_attributes else None,
            "y": y,
        }
    )


def _attributes(values: Mapping[str, Any], names: Sequence[str], owner: str) -> NDArray[Any]:
    absent = [name for name in names if name not in values]
    if absent:
        raise ValueError(f"{owner} has no attribute {absent[0]!r} but {', '.join(map(str, values)) or 'none'}.")
    return np.concatenate([np.atleast_1d(values[name]) for name in names]) if names else np.empty(0)


def _array(name: str, value: Any) -> NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} has rows of different lengths; give one shape.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers; got type {array.dtype}.")
    return array


def _table(name: str, value: Any) -> NDArray[Any]:
    array = _array(name, value)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected 2 dimensions.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite; replace them.")
        return array.astype(np.float32)
    return array.astype(np.int64)


def _check_rows(name: str, table: NDArray[Any], count: int, what: str) -> None:
    if len(table) != count:
        raise ValueError(f"{name} has {len(table)} rows; expected one for each of the {count} {what}.")


def _edges(name: str, value: Any, num_nodes: int) -> NDArray[np.int64]:
    array = _array(name, value)
    if array.size == 0:
        return np.empty((2, 0), dtype=np.int64)
    if array.ndim != 2 or array.shape[0] != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; expected (2, edges) of integers.")
    if array.min() < 0 or array.max() >= num_nodes:
        raise ValueError(
            f"{name} must be between 0 and {num_nodes - 1}, the last node; got {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def _label(value: Any, num_nodes: int) -> Any:
    array = _array("y", value)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.dtype.kind == "f":
        if array.ndim > 1 or array.size == 0 or np.isinf(array).any():
            raise ValueError(f"y has shape {array.shape}; expected (targets,) of numbers, NaN where one is missing.")
        return array.reshape(-1).astype(np.float32)
    if array.size == 1 and array.ndim <= 1:
        return int(array.reshape(()))
    if array.shape == (num_nodes,):
        return array.astype(np.int64)
    raise ValueError(
        f"y has shape {array.shape} and type {array.dtype}; expected one class, ({num_nodes},) integers, one for each "
        "node, or (targets,) floats."
    )
