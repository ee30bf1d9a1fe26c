"""Training on one large graph part by part: PyTorch Geometric's loaders as batches of model inputs.

Of these loaders only the random one runs on torch-geometric alone; the others need its compiled library, pyg-lib.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...graph.inputs import check_graph
from ...hub.optional import import_optional
from ...hub.values import require_integer
from ...nn.checks import IGNORED_LABEL

# Columns of a row, and their names in PyTorch Geometric, which takes what has "edge" in its name for one row per edge.
NAMES = {"node_feat": "x", "edge_index": "edge_index", "edge_attr": "edge_attr", "y": "y"}
INPUTS = {
    "x": "node_features",
    "edge_index": "edge_index",
    "edge_attr": "edge_features",
    "node_encodings": "node_encodings",
    "y": "labels",
}


class NodeBatches:
    """Batches of model inputs of `SFTForNodeClassification`, each one subgraph; every pass draws them anew.

    A batch holds, for n nodes and E edges: `node_features` (1, n, C) and `edge_features` (1, E, C'), long or float32;
    `edge_index` (1, 2, E) long; `node_encodings` (1, n, P) float32 where given; `attention_mask` (1, n) and
    `edge_mask` (1, E) long, all 1; and `labels` (1, n) long, -100 for nodes that are not seeds.

    Args:
        loader: yields `torch_geometric.data.Data`; of a loader of neighbours, the first `batch_size` nodes are seeds.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for data in self.loader:
            yield model_inputs(data)


def random_partitions(
    row: Mapping[str, Any],
    num_parts: int,
    seeds: ArrayLike | None = None,
    node_encodings: ArrayLike | None = None,
    **options: Any,
) -> NodeBatches:
    """Parts of nodes drawn at random, with the edges inside each part, by `RandomNodeLoader`.

    Of the edges only about one in `num_parts` lies inside a part: prefer few parts, or [`cluster_partitions`].

    Args:
        row: a graph with labels of its nodes; see `check_graph`. Labels of -100 are missing.
        num_parts: 1 to n.
        seeds: nodes to learn from, (n,) bool or (m,) indices; all by default.
        node_encodings: (n, P) floats, computed on the whole graph.
        options: of `torch.utils.data.DataLoader`, such as `num_workers` and `generator`; `shuffle` is on.

    Raises:
        ValueError: an argument does not fit.
        ImportError: torch-geometric is missing.
    """
    loader = import_optional("torch_geometric.loader", "graphs").RandomNodeLoader
    data = _data(row, seeds, node_encodings)
    require_integer("`num_parts`", num_parts, 1, data.num_nodes)
    return NodeBatches(loader(data, num_parts, **{"shuffle": True} | options))


def cluster_partitions(
    row: Mapping[str, Any],
    num_parts: int,
    parts_per_batch: int = 1,
    seeds: ArrayLike | None = None,
    node_encodings: ArrayLike | None = None,
    **options: Any,
) -> NodeBatches:
    """Parts that METIS finds, with few edges between them (Cluster-GCN, arXiv 1905.07953).

    Args:
        row, seeds, node_encodings, options: as for [`random_partitions`]. The edges must have both directions.
        num_parts: 1 to n.
        parts_per_batch: parts joined to one batch, with the edges between them; 1 to `num_parts`.

    Raises:
        ValueError: an argument does not fit.
        ImportError: torch-geometric or pyg-lib is missing.
    """
    library = import_optional("torch_geometric.loader", "graphs")
    _require_compiled("WITH_METIS", "ClusterData")
    data = _data(row, seeds, node_encodings)
    require_integer("`num_parts`", num_parts, 1, data.num_nodes)
    require_integer("`parts_per_batch`", parts_per_batch, 1, num_parts)
    parts = library.ClusterData(data, num_parts, log=False)
    return NodeBatches(library.ClusterLoader(parts, batch_size=parts_per_batch, **{"shuffle": True} | options))


def sampled_neighborhoods(
    row: Mapping[str, Any],
    num_neighbors: Sequence[int],
    batch_size: int,
    seeds: ArrayLike | None = None,
    node_encodings: ArrayLike | None = None,
    **options: Any,
) -> NodeBatches:
    """Some seeds at a time, first, and behind them nodes sampled hop by hop against the edges (GraphSAGE).

    Args:
        row, seeds, node_encodings: as for [`random_partitions`].
        num_neighbors: neighbours to sample per node in each hop, -1 for all.
        batch_size: seeds per batch.
        options: further ones of `torch_geometric.loader.NeighborLoader`; `shuffle` is on.

    Raises:
        ValueError: an argument does not fit.
        ImportError: torch-geometric or pyg-lib is missing.
    """
    loader = import_optional("torch_geometric.loader", "graphs").NeighborLoader
    _require_compiled("WITH_PYG_LIB", "NeighborLoader")
    data = _data(row, seeds, node_encodings)
    require_integer("`batch_size`", batch_size, 1, data.num_nodes)
    input_nodes = (data.y != IGNORED_LABEL).nonzero()[:, 0]
    neighbors = list(num_neighbors)
    options = {"shuffle": True} | options
    return NodeBatches(loader(data, neighbors, input_nodes=input_nodes, batch_size=batch_size, **options))


def model_inputs(data: Any) -> dict[str, Tensor]:
    """Model inputs of one subgraph; see [`NodeBatches`].

    Args:
        data: a `torch_geometric.data.Data` of a loader.
    """
    inputs = {name: data[key][None] for key, name in INPUTS.items() if key in data and data[key] is not None}
    if "batch_size" in data:
        # Sampled neighbours may be seeds of another batch: they count there.
        inputs["labels"] = inputs["labels"].clone()
        inputs["labels"][:, data.batch_size :] = IGNORED_LABEL
    ones = torch.ones(1, max(data.num_nodes, data.num_edges), dtype=torch.long)
    return inputs | {"attention_mask": ones[:, : data.num_nodes], "edge_mask": ones[:, : data.num_edges]}


def _data(row: Mapping[str, Any], seeds: ArrayLike | None, node_encodings: ArrayLike | None) -> Any:
    """The graph as `torch_geometric.data.Data`, labels of nodes that are not seeds being -100."""
    graph = check_graph(row)
    num_nodes = graph["num_nodes"]
    labels = torch.as_tensor(graph.get("y", ()))
    if labels.shape != (num_nodes,) or labels.is_floating_point():
        raise ValueError(
            f"`row` has no class for each node: give `y`, ({num_nodes},) integers, -100 for missing ones."
        )
    tensors = {NAMES[name]: torch.as_tensor(graph[name]) for name in NAMES if name in graph}
    if seeds is not None:
        tensors["y"] = labels.masked_fill(~_seed_mask(torch.as_tensor(seeds), num_nodes), IGNORED_LABEL)
    if not bool((tensors["y"] != IGNORED_LABEL).any()):
        raise ValueError("No seed has a label: check `seeds` and the labels `y` of `row`.")
    if node_encodings is not None:
        tensors["node_encodings"] = torch.as_tensor(node_encodings, dtype=torch.float32)
        if tensors["node_encodings"].dim() != 2 or len(tensors["node_encodings"]) != num_nodes:
            shape = tuple(tensors["node_encodings"].shape)
            raise ValueError(
                f"`node_encodings` has shape {shape}: expected ({num_nodes}, channels), one row per node."
            )
    return import_optional("torch_geometric.data", "graphs").Data(num_nodes=num_nodes, **tensors)


def _seed_mask(seeds: Tensor, num_nodes: int) -> Tensor:
    if seeds.dtype == torch.bool:
        fits = seeds.shape == (num_nodes,)
    else:
        integers = not seeds.is_floating_point()
        fits = seeds.dim() == 1 and integers and bool(((seeds >= 0) & (seeds < num_nodes)).all())
    if not fits:
        raise ValueError(f"`seeds` must be ({num_nodes},) bool, or indices from 0 to {num_nodes - 1}.")
    mask = torch.zeros(num_nodes, dtype=torch.bool)
    mask[seeds] = True
    return mask


def _require_compiled(flag: str, what: str) -> None:
    """Raise an ImportError unless torch-geometric found pyg-lib, or torch-sparse, which does the same."""
    typing = import_optional("torch_geometric.typing", "graphs")
    if not (getattr(typing, flag, False) or typing.WITH_TORCH_SPARSE):
        raise ImportError(
            f'`{what}` of torch-geometric needs its compiled library `pyg-lib`: see "Installation" in the '
            "documentation of PyTorch Geometric for the one that fits your PyTorch, or use `random_partitions`, which "
            "does without."
        )
