"""Attention of every token to the K sampled tokens: scores, probabilities, the eager computation, the module.

Cost and memory are O(N K): queries are handled in chunks, and nothing of size (N, N) or (N, K, d) is allocated
(SFT, arXiv 2408.05822, section 3).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import maybe_autocast

from .configuration_sft import SFTEncoderConfig
from .initialization_sft import unit_variance_linear
from .relations_sft import PreparedRelation, build_relation
from .sampling_sft import Sample, SFTSampler, gather_rows, log_softplus, mix_pairs

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


def eager_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    leak_logits: Tensor | None,
    valid: Tensor,
    relation: PreparedRelation | None,
    score: str,
    probability: str,
    dropout: float = 0.0,
    output_attentions: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention over sampled tokens in plain torch operations.

    Args:
        query: `(B, H, N, d_s)`.
        key: `(B, H, K, d_s)`.
        value: `(B, H, K, d)`.
        leak_logits: `(B, H, K)`, or `None`.
        valid: `(B, S, K)` bool, S being 1 or H.
        relation: scales and shifts the scores, or `None`.
        score: a key of `ATTENTION_SCORES`.
        probability: as in [`attention_probabilities`].
        dropout: probability with which weights are dropped.
        output_attentions: return the weights as well.

    Returns:
        The heads' outputs `(B, H, N, d)` in the dtype of `value`, and the weights `(B, H, N, K)` or `None`.
    """
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
                scale, bias = relation.scale_and_bias(start, stop)
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


class SFTAttention(nn.Module):
    """Sample K tokens, then let all N tokens attend to them.

    Queries and keys are drawn with unit variance whatever `initializer_range` says: the scores' scaling rests on it,
    and with the usual 0.02 every row of relu(maxout) would start, and stay, empty.
    """

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        width, score_width = config.hidden_size, config.num_attention_heads * config.score_channels
        self.sampler = SFTSampler(config)
        self.q_proj = unit_variance_linear(width, score_width)
        # No biases on what is projected after mixing: a projected mixture is then the mixture of projections.
        self.k_proj = unit_variance_linear(width, score_width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.c_proj = nn.Linear(width, self.num_heads, bias=False) if config.attention_leak else None
        self.o_proj = nn.Linear(width, width)
        self.relation: Any = build_relation(config)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor,
        relation_inputs: tuple | None,
        num_sampled_tokens: int,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Attend to a sample of the tokens.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool, `True` for real tokens.
            relation_inputs: what the modality's relation is computed from, or `None`.
            num_sampled_tokens: K.
            output_attentions: also return the attention weights.

        Returns:
            The output `(B, N, D)`, the weights `(B, H, N, K)` or `None`, the sampled tokens `(B, S, K)` and the
            importance scores `(B, N, S)`.
        """
        batch, length, _ = hidden_states.shape
        sample, importance = self.sampler(hidden_states, mask, num_sampled_tokens, relation_inputs)
        query = self.q_proj(hidden_states).view(batch, length, self.num_heads, -1).transpose(1, 2)
        key, value, leak_logits = self._keys(hidden_states, sample)
        relation = None
        if self.relation is not None and relation_inputs is not None:
            relation = self.relation.prepare(relation_inputs, sample)
        heads, attentions = eager_attention(
            query,
            key,
            value,
            leak_logits,
            sample.valid,
            relation,
            self.config.attention_score,
            self.config.attention_probability,
            dropout=self.config.attention_probs_dropout_prob if self.training else 0.0,
            output_attentions=output_attentions,
        )
        output = self.o_proj(heads.transpose(1, 2).reshape(batch, length, -1))
        return output, attentions, sample.indices, importance[..., :length].transpose(1, 2)

    def _keys(self, hidden_states: Tensor, sample: Sample) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gather and mix the sampled states, then project only those: keys, values and leak logits per head."""
        tokens, indices, partners = hidden_states, sample.indices, sample.partners
        extra = self.sampler.extra_tokens
        if extra is not None:
            # Extra token e of sample s stands behind the tokens, at N + s * E + e.
            tokens = torch.cat([tokens, extra.to(tokens.dtype).flatten(0, 1).expand(len(tokens), -1, -1)], dim=1)
            shift = torch.arange(len(extra), device=indices.device)[:, None] * extra.shape[1]
            length = hidden_states.shape[1]
            indices = torch.where(indices >= length, indices + shift, indices)
            partners = None if partners is None else torch.where(partners >= length, partners + shift, partners)
        if partners is None:
            rows, partner_rows = gather_rows(tokens, indices), None
        else:
            # One gather, then a split: each gather writes a full gradient tensor in backward.
            rows, partner_rows = gather_rows(tokens, torch.cat([indices, partners], dim=-1)).chunk(2, dim=2)
        sampled = mix_pairs(rows, partner_rows, sample, self.config.sampling_estimator)
        leak_logits = None if self.c_proj is None else self._own_channels(self.c_proj(sampled)).squeeze(-1)
        return self._own_channels(self.k_proj(sampled)), self._own_channels(self.v_proj(sampled)), leak_logits

    def _own_channels(self, projected: Tensor) -> Tensor:
        """Each head's channels of its sample: `(B, S, K, H * c)` to `(B, H, K, c)`."""
        heads = projected.unflatten(-1, (self.num_heads, -1))
        if heads.shape[1] == 1:
            return heads.squeeze(1).transpose(1, 2)
        return heads.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


__all__ = ["ATTENTION_SCORES", "SFTAttention", "attention_probabilities", "eager_attention"]
