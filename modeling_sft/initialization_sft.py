"""Initialisation by fan-in, for the projections whose scale matters."""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def unit_variance(module: Module) -> Module:
    """Mark a linear layer, convolution or embedding whose outputs shall start with unit variance.

    `SFTPreTrainedModel._init_weights` draws weights with the inverse root of the fan-in as standard deviation (inputs
    being normalised), and embeddings with 1, whatever `initializer_range` says. The mark sits on the layer itself:
    Transformers skips modules without own parameters.
    """
    setattr(module, "starts_with_unit_variance", True)  # noqa: B010 (mypy takes module attributes for tensors)
    return module


def unit_variance_linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """A plain linear layer, marked by [`unit_variance`]."""
    return unit_variance(nn.Linear(in_features, out_features, bias=bias))


__all__ = ["unit_variance", "unit_variance_linear"]
