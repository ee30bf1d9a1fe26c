"""From scores to weights over the sampled tokens (docs/design.md, section 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.functional import log_softplus

PROBABILITY_EPS = 1e-3


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
