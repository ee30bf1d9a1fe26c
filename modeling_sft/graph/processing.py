"""The processor of graphs: graphs of other libraries, rows or SMILES in, padded model inputs out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.feature_extraction_utils import BatchFeature

from ..hub.arguments import refuses_unknown_arguments
from ..hub.processing import SFTProcessor, prepared
from ..hub.values import require_integer
from ..nn.checks import IGNORED_LABEL
from .encodings import laplacian_encodings, random_walk_encodings
from .inputs import check_graph, graph_from_networkx, graph_from_pyg, graphs_from_pyg_batch
from .molecules import (
    ATOM_FEATURE_SIZES,
    BOND_FEATURE_SIZES,
    descriptor_names,
    graph_to_molecule,
    molecular_descriptors,
    smiles_to_graph,
)

# A file of settings must not decide that memory is filled.
MAX_ENCODINGS = 2**12


class SFTGraphProcessor(SFTProcessor):
    """Turns graphs of n nodes and E edges into the inputs of `SFTGraphModel`.

    A graph is one of:

    - a row: a mapping with `node_feat` (n, C), `edge_index` (2, E) and, where there are some, `num_nodes`, `edge_attr`
      (E, C'), `y`, `edge_label_index` (2, M) and `edge_label` (M,), as arrays or nested lists; the Hub's graph data
      sets have such rows;
    - a PyTorch Geometric `Data`, or anything with its attributes `x`, `edge_index`, `edge_attr`, `y`, ...;
    - a networkx graph, whose features are the attributes that `node_attributes` and `edge_attributes` name, and whose
      label is its graph attribute "y", if it has one;
    - a molecule as a SMILES string, read by RDKit, with the features of OGB (see `molecule_vocab_sizes`).

    Features of integers are categories, floats are continuous. Labels are `edge_label` where there are pairs of nodes
    (`edge_label_index`, for link prediction), else `y`: an integer is the class of the graph, (T,) floats its targets
    or several labels, NaN where one is missing, and (n,) integers the classes of its nodes, -100 for none.

    Args:
        random_walk_steps: how many return probabilities of random walks to give as `node_encodings`; 0 gives none.
        laplacian_vectors: how many eigenvectors of the graph Laplacian to give behind these; 0 gives none.
        node_attributes: names of the attributes of networkx nodes that are features, side by side.
        edge_attributes: the same for networkx edges.
        descriptors: names of RDKit's properties of whole molecules to give as `graph_features`, in this order, or
            "all" of them; the graphs are molecules then, with the features of OGB. They see no stereo and no isotopes.

    Raises:
        TypeError: for an unknown argument.
        ValueError: for a value outside its range.
        ImportError: for descriptors without RDKit.
    """

    model_input_names = [
        *("node_features", "edge_index", "edge_features", "edge_mask"),
        *("node_encodings", "graph_features", "attention_mask", "node_pairs"),
    ]

    def __init__(
        self,
        random_walk_steps: int = 0,
        laplacian_vectors: int = 0,
        node_attributes: Sequence[str] = (),
        edge_attributes: Sequence[str] = (),
        descriptors: str | Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        for name, count in (("random_walk_steps", random_walk_steps), ("laplacian_vectors", laplacian_vectors)):
            require_integer(name, count, 0, MAX_ENCODINGS)
        for name, names in (("node_attributes", node_attributes), ("edge_attributes", edge_attributes)):
            if not isinstance(names, (list, tuple)) or not all(isinstance(each, str) for each in names):
                raise ValueError(f"{name} must be a list of names; got {names!r}.")
        names = _checked_descriptors(descriptors)
        super().__init__(**kwargs)
        self.random_walk_steps = random_walk_steps
        self.laplacian_vectors = laplacian_vectors
        self.node_attributes = list(node_attributes)
        self.edge_attributes = list(edge_attributes)
        self.descriptors = names

    @property
    def num_node_encodings(self) -> int:
        """The width of `node_encodings`, for the configuration."""
        return self.random_walk_steps + self.laplacian_vectors

    @staticmethod
    def molecule_vocab_sizes() -> dict[str, list[int]]:
        """The arguments of `SFTGraphConfig` that fit SMILES: `node_vocab_sizes` (9) and `edge_vocab_sizes` (3)."""
        return {"node_vocab_sizes": list(ATOM_FEATURE_SIZES), "edge_vocab_sizes": list(BOND_FEATURE_SIZES)}

    @refuses_unknown_arguments()
    def __call__(self, graphs: Any, *, return_tensors: str | None = "pt") -> BatchFeature:
        """Prepares one graph or several.

        Args:
            graphs: one graph, a list (or another sequence, such as a `datasets.Dataset`) of them, or a PyTorch
                Geometric `Batch`.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            BatchFeature, see `pad`.

        Raises:
            ValueError: for what is no graph, an empty one, features or labels that are not finite or do not fit, and
                edges out of range; the message names the graph's place in the batch.
            ImportError: for SMILES without RDKit, and encodings without SciPy.
        """
        singles = _split_into_graphs(graphs)
        if len(singles) == 0:
            raise ValueError("graphs is empty; pass at least one graph.")
        items = prepared("Graph", singles, lambda _, graph: self.item(graph))
        return self.pad(items, return_tensors=return_tensors)

    def item(self, graph: Any) -> dict[str, Any]:
        """Prepares one graph, without padding.

        Args:
            graph: one graph, as described under the class.

        Returns:
            `node_features` (n, C) int64 or float32, `edge_index` (2, E) int64 and, where there are some,
            `edge_features` (E, C') int64 or float32, `node_encodings` (n, P) float32, `graph_features` (G,) float32,
            `node_pairs` (M, 2) int64 and `labels`: an int64 scalar, (T,) float32, (n,) int64 or, with `node_pairs`,
            (M,) int64.

        Raises:
            ValueError: as `__call__`.
            ImportError: as `__call__`.
        """
        row = self._row(graph)
        num_nodes, edge_index = row["num_nodes"], row["edge_index"]
        item = {"node_features": row["node_feat"], "edge_index": edge_index}
        if "edge_attr" in row:
            item["edge_features"] = row["edge_attr"]
        encodings = []
        if self.random_walk_steps > 0:
            encodings.append(random_walk_encodings(edge_index, num_nodes, self.random_walk_steps))
        if self.laplacian_vectors > 0:
            encodings.append(laplacian_encodings(edge_index, num_nodes, self.laplacian_vectors))
        if encodings:
            item["node_encodings"] = np.concatenate(encodings, axis=1)
        if self.descriptors:
            item["graph_features"] = self.graph_features(row)
        if "edge_label_index" in row:
            item["node_pairs"] = np.ascontiguousarray(row["edge_label_index"].T)
            item["labels"] = row["edge_label"]
        elif "y" in row:
            item["labels"] = np.asarray(row["y"])
        return item

    def graph_features(self, row: Mapping[str, Any]) -> NDArray[np.float32]:
        """The descriptors of a molecule, in RDKit's units: `(len(descriptors),)`.

        Args:
            row: a molecule with the features of OGB.

        Raises:
            ValueError: for another graph, or a descriptor that is not finite.
        """
        # A row without bonds may have no features of bonds.
        bonds = row.get("edge_attr")
        bonds = np.empty((0, len(BOND_FEATURE_SIZES)), np.int64) if bonds is None or len(bonds) == 0 else bonds
        return molecular_descriptors(graph_to_molecule({**row, "edge_attr": bonds}), self.descriptors)

    def pad(self, items: Sequence[Mapping[str, Any]], return_tensors: str | None = "pt") -> BatchFeature:
        """Joins results of `item` into a batch, padded to its most nodes, edges and pairs.

        Args:
            items: at least one result of `item`; keys that are no model inputs are left out.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            BatchFeature with `node_features` (B, N, C) int64, or float32 if those of any graph are; `edge_index`
            (B, 2, E) int64; `edge_mask` (B, E) and `attention_mask` (B, N) int64, 1 = real and 0 = padding; and, where
            there are some, `edge_features` (B, E, C') int64 or float32, `node_encodings` (B, N, P) float32,
            `graph_features` (B, G) float32, `node_pairs` (B, M, 2) int64 and `labels`: (B,) int64, (B, T) float32,
            (B, N) int64 for classes of nodes, or (B, M) int64 for pairs. Padding is -100 in `labels` and 0 everywhere
            else. The class of a graph of one node counts as the node's where other graphs of the batch have classes of
            nodes.

        Raises:
            ValueError: for an empty list, inputs that some graphs have and others lack, widths that differ, and labels
                that do not fit each other.
        """
        if len(items) == 0:
            raise ValueError("items is empty; pass at least one result of item().")
        num_nodes = [len(item["node_features"]) for item in items]
        num_edges = [item["edge_index"].shape[1] for item in items]
        batch: dict[str, NDArray[Any]] = {
            "node_features": _padded("node_features", _column(items, "node_features")),
            "edge_index": _padded("edge_index", [item["edge_index"].T for item in items]).swapaxes(1, 2),
            "edge_mask": _mask(num_edges),
            "attention_mask": _mask(num_nodes),
        }
        # Lists of no edges have lost type and width of their features.
        with_edges = [row for row, count in enumerate(num_edges) if count > 0]
        edge_features = _column(items, "edge_features", with_edges)
        if edge_features:
            parts = dict(zip(with_edges, edge_features))
            empty = edge_features[0][:0]
            batch["edge_features"] = _padded("edge_features", [parts.get(row, empty) for row in range(len(items))])
        for name in ("node_encodings", "node_pairs"):
            arrays = _column(items, name)
            if arrays:
                batch[name] = _padded(name, arrays)
        graph_features = _column(items, "graph_features")
        if graph_features:
            batch["graph_features"] = np.stack(graph_features).astype(np.float32)
        labels = _column(items, "labels")
        if labels:
            batch["labels"] = _joined_labels(labels, num_nodes, "node_pairs" in batch)
        # PyTorch takes over arrays of one block only.
        return BatchFeature({name: np.ascontiguousarray(array) for name, array in batch.items()}, return_tensors)

    def _row(self, graph: Any) -> dict[str, Any]:
        if isinstance(graph, str):
            return smiles_to_graph(graph)
        if isinstance(graph, Mapping):
            return check_graph(graph)
        if _is_batch(graph):
            raise ValueError("graph is a Batch of several graphs; call the processor, or pass one Data.")
        if hasattr(graph, "edge_index"):
            return graph_from_pyg(graph)
        if _is_networkx(graph):
            if not self.node_attributes:
                raise ValueError(
                    "node_attributes is empty; name the attributes of networkx nodes that are their features."
                )
            return graph_from_networkx(graph, self.node_attributes, self.edge_attributes, graph.graph.get("y"))
        raise ValueError(
            "graph must be a PyTorch Geometric Data, a networkx graph, a mapping with node_feat and edge_index, or a "
            f"SMILES string; got {type(graph).__name__}."
        )


def _checked_descriptors(names: str | Sequence[str]) -> list[str]:
    """The names of descriptors; RDKit is not needed for none."""
    if not names:
        return []
    known = descriptor_names()
    if names == "all":
        return list(known)
    if not isinstance(names, (list, tuple)) or not set(names) <= set(known):
        raise ValueError(f'descriptors must be "all" or a list of {", ".join(known)}; got {names!r}.')
    return list(names)


def _split_into_graphs(graphs: Any) -> list[Any]:
    if _is_batch(graphs):
        return graphs_from_pyg_batch(graphs)
    if isinstance(graphs, (str, Mapping)) or hasattr(graphs, "edge_index") or _is_networkx(graphs):
        return [graphs]
    # A HeteroData has a length as well, but is no sequence of graphs.
    if hasattr(graphs, "__len__") and hasattr(graphs, "__getitem__") and not hasattr(graphs, "edge_types"):
        parts = (graphs_from_pyg_batch(entry) if _is_batch(entry) else [entry] for entry in graphs)
        return [graph for part in parts for graph in part]
    return [graphs]


def _is_batch(value: Any) -> bool:
    return hasattr(value, "to_data_list")


def _is_networkx(value: Any) -> bool:
    return hasattr(value, "adj") and hasattr(value, "is_directed")


def _column(items: Sequence[Mapping[str, Any]], name: str, rows: Sequence[int] | None = None) -> list[NDArray[Any]]:
    """The arrays under one key, of all items (or those of `rows`) or of none."""
    rows = range(len(items)) if rows is None else rows
    has = [name in items[row] for row in rows]
    if any(has) and not all(has):
        source = {"edge_features": " (edge_attr)", "labels": " (y)", "node_pairs": " (edge_label_index)"}.get(name, "")
        raise ValueError(
            f"items[{rows[has.index(False)]}] has no {name}{source} and items[{rows[has.index(True)]}] has; give them "
            "for all graphs of a batch or for none."
        )
    return [np.asarray(items[row][name]) for row in rows] if any(has) else []


def _padded(name: str, arrays: Sequence[NDArray[Any]], padding: int = 0) -> NDArray[Any]:
    """Joins arrays (length, ...) of one width to (B, longest, ...)."""
    widths = [array.shape[1:] for array in arrays]
    odd = next((row for row, width in enumerate(widths) if width != widths[0]), None)
    if odd is not None:
        raise ValueError(
            f"{name} of items[{odd}] has {widths[odd][0]} columns and that of items[0] {widths[0][0]}; give all "
            "graphs of a batch the same features."
        )
    is_float = any(array.dtype.kind == "f" for array in arrays)
    shape = (len(arrays), max(map(len, arrays)), *widths[0])
    padded = np.full(shape, padding, dtype=np.float32 if is_float else np.int64)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return padded


def _mask(lengths: Sequence[int]) -> NDArray[np.int64]:
    return (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)


def _joined_labels(labels: list[NDArray[Any]], num_nodes: Sequence[int], of_pairs: bool) -> NDArray[Any]:
    is_integer = all(label.dtype.kind in "iu" for label in labels)
    if is_integer and (of_pairs or any(label.ndim == 1 for label in labels)):
        if not of_pairs:
            labels = [label.reshape(1) if count == 1 else label for label, count in zip(labels, num_nodes)]
        if all(label.ndim == 1 for label in labels):
            return _padded("labels", labels, IGNORED_LABEL)
    shapes = {label.shape for label in labels}
    if len(shapes) > 1 or len({label.dtype.kind in "iu" for label in labels}) > 1:
        raise ValueError(
            "labels (y) differ in shape or type: give all graphs of a batch one class, as many float targets, or one "
            f"class for each node; got shapes {sorted(shapes)}."
        )
    return np.stack(labels).astype(np.int64 if is_integer else np.float32)
