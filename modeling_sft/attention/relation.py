"""What the relations of all kinds of input share: their weights, and what attention needs of them.

A relation computes features phi of a query and a sampled token that scale and shift their attention score: per head
h, softplus(a_h . phi + ln(e - 1)) * score + b_h . phi. That equation stands in [`effect_of`] and [`Effect.apply`].
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configuration_sft import SFTEncoderConfig
from ..sampling.sample import Sample

# softplus(IDENTITY_OFFSET) = 1.
IDENTITY_OFFSET = math.log(math.e - 1)

# (gradients of an effect's scale and bias, a prepared relation of gradients) -> None; adds to the latter's tensors.
Gradient = Callable[[Tensor, Tensor, Any], None]


class PreparedRelation(Protocol):
    """A relation bound to a sample: a named tuple of tensors, from which its effect is computed tile by tile."""

    def rows(self, rows: slice) -> Any:
        """The same for some rows of the batch."""

    def queries(self, queries: slice) -> Any:
        """The same for some queries."""

    def with_fixed_sizes(self) -> Any:
        """The same in tensors whose sizes follow from B, N and K alone, as compiled code wants them."""

    def effect(self) -> "Effect":
        """Factor and summand of the scores; call with autocast off."""

    def kernel_operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, and places of queries and of sampled tokens, from which CUDA kernels compute the effect.

        Places are floats `(B, C, N)` and `(B, S, C + 1, K)`, with weights `(2, H, R)` of point-pair features; or longs
        `(B, N)` and `(B, S, K)`, with tables `(2, H, T)` over their offsets.

        Raises:
            ValueError: the kernels do not compute this relation.
        """

    def with_gradient(self, needs_grad: tuple[bool, ...]) -> "tuple[Effect, Gradient]":
        """`effect` without a graph, and the function that adds its gradients to those of these tensors.

        Args:
            needs_grad: which of the tensors get a gradient; the function leaves the others alone.
        """


def effect_with_gradient(prepared: Any, needs_grad: tuple[bool, ...]) -> "tuple[Effect, Gradient]":
    """`effect` of a prepared relation without a graph, and its gradient by PyTorch's own differentiation.

    Args:
        prepared: a [`PreparedRelation`].
        needs_grad: which of its tensors get a gradient.

    Returns:
        Factor and summand of the scores, and the function that adds their gradients to those of the tensors.
    """
    tensors = (
        tensor.detach().requires_grad_() if tensor is not None and needed else tensor
        for tensor, needed in zip(prepared, needs_grad, strict=True)
    )
    leaves = type(prepared)(*tensors)
    with torch.set_grad_enabled(any(needs_grad)):
        effect = leaves.effect()

    def gradient(grad_scale: Tensor, grad_bias: Tensor, target: Any) -> None:
        wanted = list(itertools.compress(leaves, needs_grad))
        found = effect_gradients(effect, wanted, grad_scale, grad_bias)
        for into, part in zip(itertools.compress(target, needs_grad), found, strict=True):
            into.add_(part)

    return Effect(effect.scale.detach(), effect.bias.detach()), gradient


def effect_gradients(
    effect: "Effect", wanted: list[Tensor], grad_scale: Tensor, grad_bias: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of the tensors wanted; scale or bias may have none, as where one of two weights is frozen."""
    pairs = zip(effect, (grad_scale, grad_bias), strict=True)
    outputs, gradients = zip(*(pair for pair in pairs if pair[0].requires_grad))
    return torch.autograd.grad(outputs, wanted, gradients)


class Effect(NamedTuple):
    """What a relation does to the scores of queries and sampled tokens; also a prepared relation itself.

    Attributes:
        scale: `(B, H, N, K)`, factor of the scores.
        bias: `(B, H, N, K)`, summand of the scores.
    """

    scale: Tensor
    bias: Tensor

    def apply(self, scores: Tensor) -> Tensor:
        """The scores `(B, H, N, K)` as the relation scales and shifts them."""
        return torch.addcmul(self.bias, self.scale, scores)

    def rows(self, rows: slice) -> "Effect":
        """The same for some rows of the batch."""
        return Effect(self.scale[rows], self.bias[rows])

    def queries(self, queries: slice) -> "Effect":
        """The same for some queries."""
        return Effect(self.scale[:, :, queries], self.bias[:, :, queries])

    def with_fixed_sizes(self) -> "Effect":
        """The same: its sizes are fixed."""
        return self

    def effect(self) -> "Effect":
        """The same: the effect of all pairs is there."""
        return self

    def kernel_operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """None: the kernels compute effects, they do not read them."""
        raise ValueError("`sft_triton` does not read the effect of a relation.")

    def with_gradient(self, needs_grad: tuple[bool, ...]) -> "tuple[Effect, Gradient]":
        """See [`effect_with_gradient`]."""
        return effect_with_gradient(self, needs_grad)


def effect_of(a_phi: Tensor, b_phi: Tensor) -> Effect:
    """The effect of projected features: scale softplus(a . phi + ln(e - 1)), bias b . phi.

    Where both are 0, the scale is 1 and the bias 0: a relation begins as the identity. Where no gradient is wanted,
    the scale is computed in the memory of `a_phi`. Sources: docs/design.md, section 3; SFT, arXiv 2408.05822, section
    3, with another constant.

    Args:
        a_phi, b_phi: `(B, H, N, K)`.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return Effect(F.softplus(a_phi + IDENTITY_OFFSET), b_phi)
    shifted = a_phi.add_(IDENTITY_OFFSET)
    # In few passes, which takes less time than F.softplus on CPU; the maximum is exact where exp would overflow.
    scale = shifted.clamp(max=80).exp_().add_(1).log_()
    return Effect(torch.maximum(scale, shifted, out=scale), b_phi)


class SFTRelation(nn.Module):
    """Per head, how the features of a query and a sampled token scale (`scale_weight`) and shift their score."""

    has_kernels: ClassVar[bool] = True
    """Whether the CUDA kernels compute it."""

    def __init__(self, config: SFTEncoderConfig, num_features: int):
        super().__init__()
        self.mixes_pairs = config.sampling_estimator == "soft"
        self.scale_weight = nn.Parameter(torch.empty(config.num_attention_heads, num_features))
        self.bias_weight = nn.Parameter(torch.empty(config.num_attention_heads, num_features))

    def forward(self, relation_inputs: tuple, sample: Sample) -> Any:
        """Bind the relation to a sample, as a call: tools that move weights hook calls, not other methods."""
        return self.prepare(relation_inputs, sample)

    def prepare(self, relation_inputs: Any, sample: Sample) -> Any:
        """Bind the relation to a sample: what its effect is computed from, a [`PreparedRelation`]."""
        raise NotImplementedError
