"""A small input for each kind of model, to see that a folder's model and processor work together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def example_inputs(model: Any, processor: Any) -> dict[str, torch.Tensor]:
    """Prepare an example input of a model.

    Args:
        model: an SFT model with or without head.
        processor: the processor, feature extractor or tokenizer that belongs to it.

    Returns:
        `dict[str, torch.Tensor]`: The keyword arguments of the model's forward pass, for a batch of one.

    Raises:
        ValueError: if the processor refuses the example.
    """
    rng = np.random.default_rng(0)
    config = model.config
    if config.modality == "point_cloud":
        return _point_cloud(config, processor, rng)
    if config.modality == "graph":
        return _graph(model, processor, rng)
    if config.num_input_features > 0:
        inputs = processor([rng.normal(size=(16, config.num_input_features))], return_tensors="pt")
    else:
        inputs = processor("An example.", return_tensors="pt")
    inputs = dict(inputs)
    if "Pair" in type(model).__name__:
        inputs |= {f"pair_{name}": value for name, value in inputs.items()}
    return inputs


def _point_cloud(config: Any, processor: Any, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    num_points = 64
    normals = rng.normal(size=(num_points, 3)) if config.use_normals else None
    features = rng.random((num_points, config.num_point_features)) if config.num_point_features else None
    inputs = dict(processor(rng.normal(size=(num_points, 3)), normals=normals, point_features=features))
    if config.num_categories > 0:
        inputs["category"] = torch.zeros(1, dtype=torch.long)
    return inputs


def _graph(model: Any, processor: Any, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    config, num_nodes = model.config, 8
    ring = np.arange(num_nodes)
    forward = np.stack([ring, np.roll(ring, -1)])
    edges = np.concatenate([forward, forward[::-1]], axis=1)
    graph: dict[str, Any] = {"num_nodes": num_nodes, "edge_index": edges}
    graph["node_feat"] = _columns(num_nodes, config.node_vocab_sizes, config.num_node_features, rng)
    if config.edge_vocab_sizes or config.num_edge_features:
        graph["edge_attr"] = _columns(edges.shape[1], config.edge_vocab_sizes, config.num_edge_features, rng)
    if "Link" in type(model).__name__:
        graph["edge_label_index"] = [[0], [1]]
    inputs = dict(processor(graph))
    inputs.pop("labels", None)
    return inputs


def _columns(rows: int, vocab_sizes: list[int] | None, num_features: int, rng: np.random.Generator) -> np.ndarray:
    categories = np.zeros((rows, len(vocab_sizes or [])), dtype=np.int64)
    return np.concatenate([categories, rng.normal(size=(rows, num_features))], axis=1) if num_features else categories
