"""Initialisation by fan-in, for the projections whose scale matters."""

from torch import nn


def unit_variance_linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """A plain linear layer whose outputs start with unit variance for normalised inputs.

    `SFTPreTrainedModel._init_weights` draws its weight with standard deviation `in_features**-0.5`, whatever
    `initializer_range` says. The mark sits on the layer itself: Transformers skips modules without own parameters.
    """
    linear = nn.Linear(in_features, out_features, bias=bias)
    setattr(linear, "starts_with_unit_variance", True)  # noqa: B010 (mypy takes module attributes for tensors)
    return linear


__all__ = ["unit_variance_linear"]
