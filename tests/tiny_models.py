"""Small models with every parameter away from zero, so that no part of them is hidden from a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from configurations import tiny_config, tiny_graph_config, tiny_sequence_config
from modeling_sft import SFTForGraphClassification, SFTForPointCloudClassification, SFTForSequenceClassification

Module = TypeVar("Module", bound=nn.Module)


def randomise(module: Module, seed: int = 0) -> Module:
    """Move all parameters and batch statistics off their initial values."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: torch.Tensor, deviation: float) -> torch.Tensor:
        return (deviation * torch.randn(like.shape, generator=generator, dtype=torch.float64)).to(like.dtype)

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("residual_scale"):
                continue
            parameter.add_(draw(parameter, 0.5 if "sampler" in name else 0.1))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(draw(buffer, 0.2))
            elif name.endswith("running_var"):
                buffer.mul_(draw(buffer, 0.3).exp())
    return module


def give_all_tokens_one_score(model: Module) -> None:
    """Make every choice of the samplers a tie."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sampler.weight"):
                parameter.zero_()


def build(
    cls: Callable[..., Any] = SFTForPointCloudClassification,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    training: bool = False,
    **changes: Any,
) -> Any:
    """A randomised tiny model of `cls` in `dtype`; `changes` go to the configuration."""
    torch.manual_seed(seed)
    model = randomise(cls(tiny_config(**changes)), seed)
    return model.to(dtype).train(training)


def build_sequence(
    cls: Callable[..., Any] = SFTForSequenceClassification,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    training: bool = False,
    **changes: Any,
) -> Any:
    """As `build`, for models of sequences."""
    torch.manual_seed(seed)
    model = randomise(cls(tiny_sequence_config(**changes)), seed)
    return model.to(dtype).train(training)


def build_graph(
    cls: Callable[..., Any] = SFTForGraphClassification,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    training: bool = False,
    **changes: Any,
) -> Any:
    """As `build`, for models of graphs."""
    torch.manual_seed(seed)
    model = randomise(cls(tiny_graph_config(**changes)), seed)
    return model.to(dtype).train(training)
