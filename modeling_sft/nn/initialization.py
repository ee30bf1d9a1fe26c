"""Initialisation by fan-in, for the projections whose scale matters."""

from typing import Any, TypeVar

import torch
from torch import nn
from transformers import initialization

Module = TypeVar("Module", bound=nn.Module)


def unit_variance(module: Module) -> Module:
    """Mark a linear layer, convolution or embedding whose outputs shall start with unit variance.

    [`start_with_unit_variance`], called from `_init_weights`, draws them, whatever `initializer_range` says. The mark
    sits on the layer itself: Transformers skips modules without own parameters.
    """
    setattr(module, "starts_with_unit_variance", True)  # noqa: B010 (mypy takes module attributes for tensors)
    return module


def unit_variance_linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """A plain linear layer, marked by [`unit_variance`]."""
    return unit_variance(nn.Linear(in_features, out_features, bias=bias))


@torch.no_grad()
def start_with_unit_variance(module: Any) -> bool:
    """Draw the weight of a marked layer: with the inverse root of its fan-in as deviation, for embeddings with 1.

    Returns:
        Whether the layer is marked; others are left alone.
    """
    if not getattr(module, "starts_with_unit_variance", False):
        return False
    is_embedding = isinstance(module, nn.Embedding)
    initialization.normal_(module.weight, mean=0.0, std=1.0 if is_embedding else module.weight[0].numel() ** -0.5)
    if is_embedding and module.padding_idx is not None:
        initialization.zeros_(module.weight[module.padding_idx])
    return True
