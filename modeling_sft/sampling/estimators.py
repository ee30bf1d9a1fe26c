"""The three estimators, which define what a sampled token is, so that the importance scorer gets a gradient.

Each estimator is a function that turns scores into the weights of a sample; [`mix_pairs`] applies these weights to
the sampled rows. Sources: docs/design.md, section 2.3; SFT (arXiv 2408.05822, section 3) and SAMSA (arXiv 2408.05391,
section 3) use `soft`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.functional import log_softplus
from .sample import Sample


def gate(scores: Tensor, noisy: Tensor, indices: Tensor, mask: Tensor, temperature: float) -> Sample:
    """The sampled token is x_t * 2 sigmoid(s_t); see [`soft`] for the arguments."""
    return Sample(indices, indices >= 0, 2 * torch.sigmoid(_at(scores, indices)))


def soft(scores: Tensor, noisy: Tensor, indices: Tensor, mask: Tensor, temperature: float) -> Sample:
    """The sampled token is w x_t + (1 - w) x_p, with w = softplus(z_t) / (softplus(z_t) + softplus(z_p)).

    The quotient is computed as a sigmoid of logarithms, because its direct gradient is NaN if both softplus are tiny.

    Args:
        scores: `(B, S, N)` importance scores s.
        noisy: `(B, S, N)` noisy scores z, which decided the sample.
        indices: `(B, S, K)` long, the sample; -1 in unused slots.
        mask: `(B, N)` bool, `True` for real tokens.
        temperature: tau of `straight_through`.
    """
    partners = uniform_partners(indices, mask, indices.shape[-1])
    logits = log_softplus(_at(noisy, indices)) - log_softplus(_at(noisy, partners))
    return _paired(indices, partners, logits)


def straight_through(scores: Tensor, noisy: Tensor, indices: Tensor, mask: Tensor, temperature: float) -> Sample:
    """The sampled token is x_t, with the gradient of the mixture whose weight is w = sigmoid((z_t - z_p) / tau).

    See [`soft`] for the arguments.
    """
    partners = uniform_partners(indices, mask, indices.shape[-1])
    return _paired(indices, partners, (_at(noisy, indices) - _at(noisy, partners)) / temperature)


ESTIMATORS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, float], Sample]] = {
    "gate": gate,
    "soft": soft,
    "straight_through": straight_through,
}


def mix_pairs(rows: Tensor, partner_rows: Tensor | None, sample: Sample, estimator: str) -> Tensor:
    """The sampled rows as the estimator defines them.

    Args:
        rows, partner_rows: `(B, S, K, C)`.
        sample: the sample with its weights; without weights, the rows are returned as they are.
        estimator: `sampling_estimator` of the configuration.
    """
    if sample.weights is None:
        return rows
    weights = sample.weights[..., None].to(rows.dtype)
    if partner_rows is None:
        return weights * rows
    mixed = weights * rows + (1 - weights) * partner_rows
    return mixed if estimator == "soft" else rows.detach() + (mixed - mixed.detach())


def mark_damage(sample: Sample, scores: Tensor, mask: Tensor) -> Sample:
    """The sample, with NaN as weights where the score of a real token is NaN.

    No comparison with NaN is true, so that damaged scores would choose no token at all, or any, and outputs, losses
    and gradients would stay finite. NaN in the weights reaches all outputs of the row, on every device and in traces,
    and costs no synchronisation; all slots are then in use, since those that are not are left out.

    Args:
        sample: what was chosen.
        scores: `(B, S, N)` importance scores.
        mask: `(B, N)` bool, `True` for real tokens.
    """
    damaged = (scores.isnan() & mask[:, None]).any(-1, keepdim=True)
    weights = scores.new_ones(sample.indices.shape) if sample.weights is None else sample.weights
    return sample._replace(valid=sample.valid | damaged, weights=weights.masked_fill(damaged, torch.nan))


def _at(scores: Tensor, indices: Tensor) -> Tensor:
    """Scores of the tokens at indices; an unused slot gets the score of the first token."""
    return scores.gather(-1, indices.clamp(min=0))


def _paired(indices: Tensor, partners: Tensor, logits: Tensor) -> Sample:
    """A sample of pairs; a slot without a partner has the weight 1."""
    paired = (indices >= 0) & (partners >= 0)
    weights = torch.where(paired, torch.sigmoid(logits), 1.0)
    return Sample(indices, indices >= 0, weights, torch.where(paired, partners, -1))


def uniform_partners(selected: Tensor, mask: Tensor, k: int) -> Tensor:
    """K tokens drawn uniformly without replacement from the real tokens that are not selected.

    Args:
        selected: `(B, S, K)` long, -1 in unused slots.
        mask: `(B, N)` bool.
        k: number of partners.

    Returns:
        `(B, S, k)` long, -1 where fewer than k tokens are left.
    """
    batch, samples, _ = selected.shape
    length = mask.shape[-1]
    keys = torch.rand(batch, samples, length, device=mask.device)
    keys = torch.where(mask[:, None], keys, -1.0)
    # Unused slots mark an extra column behind the tokens, which stands for no token.
    keys = F.pad(keys, (0, 1), value=-1.0).scatter(-1, torch.where(selected < 0, length, selected), -1.0)
    top = F.pad(keys, (0, k), value=-1.0).topk(k, dim=-1, sorted=False)
    return torch.where(top.values >= 0, top.indices, -1)
