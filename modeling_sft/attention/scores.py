"""Scores of a query and a sampled token, pure functions of their channels (docs/design.md, section 3)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Mean and standard deviation of the larger of two independent standard normal variables.
MAXOUT_MEAN = 1 / math.sqrt(math.pi)
MAXOUT_STD = math.sqrt(1 - 1 / math.pi)


class _ChannelwiseL1Distance(torch.autograd.Function):
    """L1 distances in O(n K) memory: one channel at a time, recomputed in backward."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor) -> Tensor:
        ctx.save_for_backward(query, key)
        total = query.new_zeros(*query.shape[:-1], key.shape[-2])
        for q, k in zip(query.unbind(-1), key.unbind(-1)):
            total += (q[..., None] - k[..., None, :]).abs()
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        query, key = ctx.saved_tensors
        grad_query, grad_key = [], []
        for q, k in zip(query.unbind(-1), key.unbind(-1)):
            signed = grad_output * (q[..., None] - k[..., None, :]).sign()
            grad_query.append(signed.sum(-1))
            grad_key.append(-signed.sum(-2))
        return torch.stack(grad_query, -1), torch.stack(grad_key, -1)


def _l1_distance(query: Tensor, key: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        # Exporters know neither of the others, and compilers fuse this one.
        return (query[..., :, :, None] - key.mT[..., None, :, :]).abs().sum(-2)
    if query.device.type == "cpu":
        return torch.cdist(query, key, p=1.0)
    # On CUDA the backward of cdist holds an (n, K, d) tensor.
    return _ChannelwiseL1Distance.apply(query, key)


def maxout_score(query: Tensor, key: Tensor) -> Tensor:
    """Sum of the channel-wise larger of query and key, standardised for standard normal inputs.

    Uses max(a, b) = (a + b + |a - b|) / 2. Source: SFT, arXiv 2408.05822, section 3.

    Args:
        query: `(..., n, d_s)`.
        key: `(..., K, d_s)`.

    Returns:
        `(..., n, K)`.
    """
    channels = query.shape[-1]
    total = (query.sum(-1)[..., None] + key.sum(-1)[..., None, :] + _l1_distance(query, key)) / 2
    return (total - channels * MAXOUT_MEAN) / (MAXOUT_STD * math.sqrt(channels))


def dot_score(query: Tensor, key: Tensor) -> Tensor:
    """Scaled dot product q.k / sqrt(d_s); shapes as in [`maxout_score`]."""
    return query @ key.mT / math.sqrt(query.shape[-1])


def signed_min_score(query: Tensor, key: Tensor) -> Tensor:
    """Sum of |q + k| - |q - k| over channels, over sqrt(d_s); shapes as in [`maxout_score`]."""
    return (_l1_distance(query, -key) - _l1_distance(query, key)) / math.sqrt(query.shape[-1])


ATTENTION_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "maxout": maxout_score,
    "dot": dot_score,
    "signed_min": signed_min_score,
}
