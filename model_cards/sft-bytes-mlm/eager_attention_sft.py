"""Scores, probabilities, and the eager attention: the readable reference of all attention backends.

Cost and memory are O(N K): queries are handled in chunks, and nothing of size (N, N) or (N, K, d) is allocated
(SFT, arXiv 2408.05822, section 3).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from .relation_base_sft import PreparedRelation
from .sampling_sft import log_softplus

# Mean and standard deviation of the larger of two independent standard normal variables.
MAXOUT_MEAN = 1 / math.sqrt(math.pi)
MAXOUT_STD = math.sqrt(1 - 1 / math.pi)
PROBABILITY_EPS = 1e-3
# Elements of one (B, H, n, K) block of scores, about 8 MiB in float32.
CHUNK_ELEMENTS = 2**21


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


def attention_probabilities(scores: Tensor, valid: Tensor, leak_logits: Tensor | None, probability: str) -> Tensor:
    """Turn scores into weights over the sampled tokens.

    relu and softplus: f(e) / (sum f(e) + leak + 1e-3), leak = sum of softplus(c). softmax: exp(e - log(sum exp(e) +
    leak)), in one log-sum-exp. Slots that are not valid are absent from numerator, denominator and leak.

    Args:
        scores: `(B, H, n, K)`.
        valid: `(B, 1 or H, 1, K)` bool.
        leak_logits: `(B, H, 1, K)` leak logits c, or `None` without leak.
        probability: `"relu"`, `"softplus"` or `"softmax"`.

    Returns:
        `(B, H, n, K)`; rows sum to less than 1 with a leak.
    """
    if probability == "softmax":
        lowest = torch.finfo(scores.dtype).min / 2
        masked = scores.masked_fill(~valid, lowest)
        total = masked.logsumexp(-1, keepdim=True)
        if leak_logits is not None:
            log_leak = log_softplus(leak_logits.masked_fill(~valid, 0.0)).masked_fill(~valid, lowest)
            total = torch.logaddexp(total, log_leak.logsumexp(-1, keepdim=True))
        return (masked - total).exp().masked_fill(~valid, 0.0)
    positive = (F.relu(scores) if probability == "relu" else F.softplus(scores)).masked_fill(~valid, 0.0)
    total = positive.sum(-1, keepdim=True) + PROBABILITY_EPS
    if leak_logits is not None:
        leak = F.softplus(leak_logits.masked_fill(~valid, 0.0)).masked_fill(~valid, 0.0)
        total = total + leak.sum(-1, keepdim=True)
    return positive / total


class AttentionInputs(NamedTuple):
    """What every attention backend computes from; its result is `(B, H, N, d)` in the dtype of `value`."""

    query: Tensor
    """`(B, H, N, d_s)`."""
    key: Tensor
    """`(B, H, K, d_s)`, of the sampled tokens, as the next three."""
    value: Tensor
    """`(B, H, K, d)`."""
    leak_logits: Tensor | None
    """`(B, H, K)`, or `None` without leak."""
    valid: Tensor
    """`(B, S, K)` bool, S being 1 or H: which slots of the sample are in use."""
    relation: PreparedRelation | None
    """Scales and shifts the scores, or `None`."""
    score: str
    """A key of `ATTENTION_SCORES`."""
    probability: str
    """As in [`attention_probabilities`]."""
    dropout: float = 0.0
    """Probability with which weights are dropped."""


def eager_attention(inputs: AttentionInputs, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention over sampled tokens in plain torch operations.

    Args:
        inputs: what to compute from.
        output_attentions: return the weights as well.

    Returns:
        The heads' outputs `(B, H, N, d)` and the weights `(B, H, N, K)` or `None`.
    """
    query, key, value, leak_logits, valid, relation, score, probability, dropout = inputs
    dtype = torch.promote_types(query.dtype, torch.float32)
    batch, heads, length, _ = query.shape
    with maybe_autocast(query.device.type, enabled=False):
        query, key = query.to(dtype), key.to(dtype)
        valid = valid[:, :, None]
        leak_logits = None if leak_logits is None else leak_logits[:, :, None].to(dtype)
        # One chunk while tracing: a loop over N would fix the length.
        rows = length if torch.compiler.is_compiling() else max(1, CHUNK_ELEMENTS // (batch * heads * key.shape[2]))
        starts = [0] if torch.compiler.is_compiling() else range(0, length, rows)
        outputs, weights = [], []
        for start in starts:
            stop = start + rows
            scores = ATTENTION_SCORES[score](query[:, :, start:stop], key)
            if relation is not None:
                part = relation if rows == length else relation.queries(slice(start, stop))
                scale, bias = part.scale_and_bias()
                scores = scale * scores + bias
            p = attention_probabilities(scores, valid, leak_logits, probability).to(value.dtype)
            p = F.dropout(p, dropout) if dropout else p
            if output_attentions:
                weights.append(p)
            else:
                outputs.append(p @ value)
        if output_attentions:
            p = torch.cat(weights, dim=2)
            return p @ value, p
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2), None


__all__ = ["ATTENTION_SCORES", "AttentionInputs", "attention_probabilities", "eager_attention"]
