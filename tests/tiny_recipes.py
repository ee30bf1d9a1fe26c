"""Recipes that train in seconds."""

from __future__ import annotations

import copy
from typing import Any

from modeling_sft.training import Recipe, check_recipe
from modeling_sft.training.recipe_files import apply_override

TINY: dict[str, Any] = {
    "task": "point-cloud-classification",
    "seed": 0,
    "dataset": {"name": "digits", "validation_fraction": 0.02},
    "model": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "score_head_dim": 4,
        "num_sampled_tokens": 6,
        "num_point_features": 1,
        "use_normals": False,
        "num_neighbors": 4,
        "local_mixing_size": 4,
        "residual_scale_init": 1.0,
        "initializer_range": 0.25,
        "sampling_noise": 0.5,
    },
    "processor": {"num_neighbors": 4, "use_normals": False},
    "training": {
        "max_steps": 6,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 32,
        "learning_rate": 1e-2,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "logging_strategy": "steps",
        "disable_tqdm": True,
        "use_cpu": True,
    },
}

TINY_SEQUENCE: dict[str, Any] = {
    "task": "sequence-classification",
    "seed": 0,
    "dataset": {"name": "text_files", "validation_fraction": 0.25},
    "model": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "score_head_dim": 4,
        "num_sampled_tokens": 6,
        "residual_scale_init": 1.0,
        "initializer_range": 0.25,
        "sampling_noise": 0.5,
    },
    "processor": {"tokenizer": "bytes", "max_length": 40},
    "training": TINY["training"],
}

TINY_GRAPH: dict[str, Any] = {
    "task": "graph-classification",
    "seed": 0,
    "dataset": {"name": "smiles_files", "validation_fraction": 0.25},
    "model": TINY_SEQUENCE["model"],
    "processor": {"random_walk_steps": 3, "laplacian_vectors": 2},
    "training": TINY["training"],
}


def tiny_settings(*overrides: str, settings: dict[str, Any] = TINY) -> dict[str, Any]:
    """The settings with dotted overrides, as nested dictionaries that the caller may change."""
    settings = copy.deepcopy(settings)
    for override in overrides:
        apply_override(settings, override)
    return settings


def tiny_recipe(*overrides: str) -> Recipe:
    """The point-cloud recipe with dotted overrides."""
    return check_recipe(Recipe.from_dict(tiny_settings(*overrides)))


def tiny_sequence_recipe(*overrides: str) -> Recipe:
    """The text recipe with dotted overrides; its data set is a folder that the test writes."""
    return check_recipe(Recipe.from_dict(tiny_settings(*overrides, settings=TINY_SEQUENCE)))


def tiny_graph_recipe(*overrides: str) -> Recipe:
    """The recipe of molecules with dotted overrides; its data set is a folder that the test writes."""
    return check_recipe(Recipe.from_dict(tiny_settings(*overrides, settings=TINY_GRAPH)))
