"""Scores of a query and a sampled token, pure functions of their channels (docs/design.md, section 3)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Mean and standard deviation of the larger of two independent standard normal variables.
MAXOUT_MEAN = 1 / math.sqrt(math.pi)
MAXOUT_STD = math.sqrt(1 - 1 / math.pi)


class _L1Distance(torch.autograd.Function):
    """L1 distances `(..., n, K)` of `(..., n, d_s)` and `(..., K, d_s)`, in O(n K) memory.

    Leading sizes are equal. All but the distances themselves goes one channel at a time. PyTorch's derivative of
    `cdist` is wrong under vmap, and has no derivative of its own; those here are plain operations, which all
    transforms know.
    """

    @staticmethod
    def forward(query: Tensor, key: Tensor) -> Tensor:
        return torch.cdist(query, key, p=1.0) if query.device.type == "cpu" else _sum_of_distances(query, key)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        grad_query, grad_key = [], []
        for q, k in _channel_pairs(*ctx.saved_tensors):
            signed = grad_output * (q - k).sign()
            grad_query.append(signed.sum(-1))
            grad_key.append(-signed.sum(-2))
        return torch.stack(grad_query, -1), torch.stack(grad_key, -1)

    @staticmethod
    def jvp(ctx: Any, query_tangent: Tensor | None, key_tangent: Tensor | None) -> Tensor:
        query, key = ctx.saved_tensors
        query_tangent = torch.zeros_like(query) if query_tangent is None else query_tangent
        key_tangent = torch.zeros_like(key) if key_tangent is None else key_tangent
        channels = zip(_channel_pairs(query, key), _channel_pairs(query_tangent, key_tangent), strict=True)
        return torch.stack([(q - k).sign() * (to_q - to_k) for (q, k), (to_q, to_k) in channels]).sum(0)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], query: Tensor, key: Tensor) -> tuple[Tensor, int]:
        query, key = (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((query, key), in_dims, strict=True)
        )
        return _L1Distance.apply(query, key), 0


def _channel_pairs(query: Tensor, key: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each channel of queries `(..., n, 1)` and of keys `(..., 1, K)`."""
    return zip(query[..., None].unbind(-2), key.mT[..., None, :].unbind(-3), strict=True)


def _sum_of_distances(query: Tensor, key: Tensor) -> Tensor:
    total = query.new_zeros(*query.shape[:-1], key.shape[-2])
    for q, k in _channel_pairs(query, key):
        total += (q - k).abs()
    return total


def _l1_distance(query: Tensor, key: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        # Exporters do not know the other, and compilers fuse this one.
        return (query[..., :, :, None] - key.mT[..., None, :, :]).abs().sum(-2)
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    return _L1Distance.apply(query.expand(*batch, -1, -1), key.expand(*batch, -1, -1))


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
