"""What the relations of all modalities share: their weights, and what attention needs of them.

A relation computes features phi of a query and a sampled token that scale and shift their attention score: per head
h, softplus(a_h . phi + ln(e - 1)) * score + b_h . phi (after SFT, arXiv 2408.05822, section 3, with the constant
chosen so that a zero start is the identity).
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .configuration_sft import SFTEncoderConfig

# softplus(IDENTITY_OFFSET) = 1.
IDENTITY_OFFSET = math.log(math.e - 1)

Gradient = Callable[[Tensor, Tensor], list[Tensor | None]]


class PreparedRelation(Protocol):
    """A relation bound to a sample: a named tuple of tensors, from which its effect is computed tile by tile."""

    def rows(self, rows: slice) -> Any:
        """The same for some rows of the batch."""

    def queries(self, queries: slice) -> Any:
        """The same for some queries."""

    def scale_and_bias(self) -> tuple[Tensor, Tensor]:
        """Factor and summand of the scores, each `(B, H, N, K)`; call with autocast off."""

    def with_gradient(self, needs_grad: tuple[bool, ...]) -> tuple[tuple[Tensor, Tensor], Gradient]:
        """`scale_and_bias` without a graph, and the function from its gradients to those of these tensors.

        Args:
            needs_grad: which of the tensors get a gradient; the others get `None`.
        """


class SFTRelation(nn.Module):
    """Per head, how the features of a query and a sampled token scale (`scale_weight`) and shift their score."""

    def __init__(self, config: SFTEncoderConfig, num_features: int):
        super().__init__()
        self.mixes_pairs = config.sampling_estimator == "soft"
        self.scale_weight = nn.Parameter(torch.empty(config.num_attention_heads, num_features))
        self.bias_weight = nn.Parameter(torch.empty(config.num_attention_heads, num_features))


__all__ = ["IDENTITY_OFFSET", "Gradient", "PreparedRelation", "SFTRelation"]
