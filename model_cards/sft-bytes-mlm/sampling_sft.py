"""The learned sampler: importance scores, differentiable sampling without replacement, deterministic selection.

Every layer picks K of the N tokens, which then serve as keys and values for all N queries (SFT, arXiv 2408.05822,
section 3; SAMSA, arXiv 2408.05391). Shapes: B rows, N tokens (extra tokens included), S samples (one per layer, or
one per head), K sampled tokens.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging
from transformers.utils.generic import maybe_autocast

from .configuration_sft import SFTEncoderConfig
from .validation_sft import can_check_values

logger = logging.get_logger(__name__)

# Selection scores are compared on this grid, so that equal tokens stay equal in batches of any shape.
SCORE_STEPS_PER_UNIT = 2**12
PROBABILITY_BITS = 40
# Halvings of the interval in which the offset of the inclusion probabilities is searched.
OFFSET_BITS = 40
NEWTON_STEPS = 5
# Beyond the rounding of single precision.
NEWTON_ERRORS = (-(2.0**-20), 0.0, 2.0**-20)
# Full noise with a hard top-k at inference is what breaks trained networks; small noise does not.
LARGE_NOISE = 0.5


class Sample(NamedTuple):
    """The tokens that a layer attends to.

    Attributes:
        indices: `(B, S, K)` long, token of each slot; -1 in unused slots. `N + e` is extra token e.
        valid: `(B, S, K)` bool, slots in use.
        weights: `(B, S, K)` float, weight of the sampled token in its mixture (or its gate); `None` for plain tokens.
        partners: `(B, S, K)` long, unselected token paired with each slot, -1 for none; `None` without pairs.
        extra_tokens: `(S, E, D)` float, states of the extra tokens; `None` without.
    """

    indices: Tensor
    valid: Tensor
    weights: Tensor | None = None
    partners: Tensor | None = None
    extra_tokens: Tensor | None = None


# (scores (B, S, N) float, mask (B, N) bool, K, relation inputs of the modality or None) -> indices (B, 1 or S, K).
Selector = Callable[[Tensor, Tensor, int, tuple | None], Tensor]


def log_softplus(x: Tensor) -> Tensor:
    """Stable logarithm of softplus: x itself below -15, where softplus(x) is exp(x) to machine precision."""
    return torch.where(x < -15, x, F.softplus(x.clamp(min=-15)).log())


def gather_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Rows of `x` (B, N, C) at `indices` (B, ...), as (B, ..., C); negative indices give row 0."""
    batch, length, width = x.shape
    offsets = torch.arange(batch, device=x.device).view(-1, *[1] * (indices.dim() - 1)) * length
    flat = (indices.clamp(min=0) + offsets).flatten()
    return x.reshape(batch * length, width).index_select(0, flat).view(*indices.shape, width)


def _selection_steps(scores: Tensor) -> Tensor:
    """Scores as integer multiples of 2^-12, bounded so that a position fits beside them in 64 bits."""
    limit = float(2**36)
    return (scores * SCORE_STEPS_PER_UNIT).round().clamp(-limit, limit).to(torch.int64)


def _selection_keys(steps: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """Distinct sort keys, by score and then by lower index; padding gets the returned floor value."""
    length = steps.shape[-1]
    positions = torch.arange(length, device=steps.device)
    floor = -(2**62)
    return torch.where(mask, steps * length + (length - 1 - positions), floor), floor


def topk_selection(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    """The k tokens of the largest scores, ties (on a grid of 2^-12) to the lower index.

    Args:
        scores: `(B, S, N)` float.
        mask: `(B, N)` bool, `True` for real tokens.
        k: sample size.

    Returns:
        `(B, S, k)` long, -1 where a row has fewer than k tokens.
    """
    keys, floor = _selection_keys(_selection_steps(scores), mask[:, None])
    # Padded by k candidates rather than cut to N: the shapes stay static in N for export.
    top = F.pad(keys, (0, k), value=floor).topk(k, dim=-1)
    return torch.where(top.values > floor, top.indices, -1)


def _sorted_by_key(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The keys of [`_selection_keys`] in descending order, and the positions they came from; `(B, S, N)` each."""
    if can_check_values(keys):
        # NumPy sorts plain integers several times faster; the keys say where they came from.
        values = torch.from_numpy(np.sort(-keys.numpy(), axis=-1)).neg_()
        return values, keys.shape[-1] - 1 - values % keys.shape[-1]
    ordered = keys.sort(dim=-1, descending=True)
    return ordered.values, ordered.indices


def _fixed_point_probabilities(distance: Tensor, offset: Tensor) -> Tensor:
    """1 - exp(-exp(distance + offset)) in units of 2^-40, as long; monotone in the offset."""
    return (distance + offset).exp_().neg_().expm1_().mul_(-(2.0**PROBABILITY_BITS)).round_().to(torch.int64)


def _approximate_offset(distance: Tensor, sizes: Tensor) -> Tensor:
    """Where the probabilities sum to `sizes`, by Newton steps on logarithms; fails where the scores lie far apart."""
    weights = distance.double().clamp_(max=100).exp_()
    rate = torch.full_like(weights[..., :1], 0.4)
    for _ in range(NEWTON_STEPS):
        load = weights * -rate
        missed = load.exp()
        total = distance.shape[-1] - missed.sum(-1, keepdim=True)
        slope = -torch.linalg.vecdot(load, missed)[..., None]
        rate = rate * (sizes / total) ** (total / slope)
    return rate.log().to(distance.dtype)


def _offset(distance: Tensor, sizes: Tensor, counts: Tensor) -> Tensor:
    """The smallest offset u at which the probabilities sum to `sizes` or more, to within 2e-11 or the last bit.

    Args:
        distance: `(B, S, N)` float, scores in units of the noise minus the `sizes`-th largest; -inf for padding.
        sizes: `(B, 1, 1)` long, tokens to take.
        counts: `(B, 1, 1)` long, real tokens.

    Returns:
        `(B, S, 1)` in the dtype of `distance`.
    """
    target = sizes * 2**PROBABILITY_BITS

    def bracket(candidates: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The closest of the candidates `(B, S, C)`, `low` and `high` below and above u."""
        probabilities = _fixed_point_probabilities(distance[:, :, None], candidates[..., None])
        reached = probabilities.sum(-1) >= target
        below, above = torch.where(reached, low, candidates), torch.where(reached, candidates, high)
        return below.amax(-1, keepdim=True), above.amin(-1, keepdim=True)

    # Relative to the k-th largest score, u lies within [-1 - log n, 4]; rows that take all tokens need no search.
    high = torch.full_like(distance[..., :1], 4.0)
    low = torch.where(counts > sizes, -1 - counts.to(distance.dtype).log(), high)
    eager = can_check_values(distance)
    if eager and distance.dtype == torch.float32:
        # Saves most steps. In single precision alone the search reaches the last bit, and so the same end from here.
        guess = _approximate_offset(distance, sizes)
        guess = torch.where((low < guess) & (guess < high), guess, high)
        low, high = bracket(guess + guess.new_tensor(NEWTON_ERRORS), low, high)
    # Bisection costs least; many parts at a time keep a traced graph short.
    parts = 2 if eager else 16
    fractions = torch.arange(1, parts, dtype=distance.dtype, device=distance.device) / parts
    for _ in range(math.ceil(OFFSET_BITS / math.log2(parts))):
        candidates = low + (high - low) * fractions
        if eager and not bool(((low < candidates) & (candidates < high)).any()):
            break
        low, high = bracket(candidates, low, high)
    return high


def systematic_selection(scores: Tensor, mask: Tensor, k: int, noise: float) -> Tensor:
    """k tokens whose frequencies follow the inclusion probabilities of Gumbel top-k sampling, without randomness.

    The probabilities are pi_i = 1 - exp(-exp(s_i / noise + u)) with u such that they sum to k. In score order, the
    tokens are taken at which the running sum of pi passes 1/2, 3/2, ..., k - 1/2 (systematic sampling with a fixed
    start). Sums run in 64-bit integers: exactly k distinct tokens, independent of padding and batch shape.

    Args:
        scores: `(B, S, N)` float.
        mask: `(B, N)` bool, `True` for real tokens.
        k: sample size.
        noise: factor of the Gumbel noise that the scores were trained with; above 0.

    Returns:
        `(B, S, k)` long, -1 where a row has fewer than k tokens.
    """
    steps = _selection_steps(scores)
    keys, floor = _selection_keys(steps, mask[:, None])
    ordered_keys, order = _sorted_by_key(keys)
    counts = mask.sum(-1)[:, None, None]
    sizes = counts.clamp(max=k)

    ordered_steps = steps.gather(-1, order)
    threshold = ordered_steps.gather(-1, (sizes - 1).clamp(min=0).expand(*steps.shape[:-1], 1))
    distance = (ordered_steps - threshold).to(scores.dtype) / (SCORE_STEPS_PER_UNIT * noise)
    distance = distance.masked_fill(ordered_keys == floor, -torch.inf)

    probabilities = _fixed_point_probabilities(distance, _offset(distance, sizes, counts))
    total = probabilities.cumsum(-1) + 2 ** (PROBABILITY_BITS - 1)
    rank = total >> PROBABILITY_BITS
    picked = (rank > (total - probabilities) >> PROBABILITY_BITS) & (rank <= sizes)
    slots = torch.where(picked, rank - 1, k)
    # Slot k collects the tokens that were not picked.
    indices = slots.new_full((*slots.shape[:-1], k + 1), -1)
    return indices.scatter(-1, slots, order)[..., :k]


def uniform_partners(selected: Tensor, mask: Tensor, k: int) -> Tensor:
    """k tokens drawn uniformly without replacement from the real tokens that are not selected.

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
    # Unused slots write into one column more than there are tokens.
    keys = F.pad(keys, (0, 1), value=-1.0).scatter(-1, torch.where(selected < 0, length, selected), -1.0)
    top = F.pad(keys, (0, k), value=-1.0).topk(k, dim=-1, sorted=False)
    return torch.where(top.values >= 0, top.indices, -1)


def random_selector(scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None) -> Tensor:
    """A uniformly random sample (torch's global generator), for comparisons: `model.set_sampler(random_selector)`."""
    unused = torch.full((scores.shape[0], scores.shape[1], 1), -1, device=scores.device)
    return uniform_partners(unused, mask, k)


def farthest_point_selector(scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None) -> Tensor:
    """Farthest-point sampling of a cloud, for comparisons: `model.set_sampler(farthest_point_selector)`.

    Starts at the point farthest from the centroid. Extra tokens are never chosen.

    Raises:
        ValueError: the modality has no points.
    """
    points = getattr(relation_inputs, "points", None)
    if points is None:
        raise ValueError("`farthest_point_selector` needs a point-cloud model: its inputs have no points.")
    mask = mask[:, : points.shape[1]]
    centroid = (points * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None].clamp(min=1)
    nearest = (points - centroid).square().sum(-1).masked_fill(~mask, -1.0)
    chosen = []
    for step in range(k):
        best = nearest.max(-1)
        chosen.append(torch.where(best.values >= 0, best.indices, -1))
        current = gather_rows(points, best.indices[:, None])
        distance = (points - current).square().sum(-1)
        nearest = torch.where(nearest < 0, nearest, distance if step == 0 else torch.minimum(nearest, distance))
        nearest = nearest.scatter(-1, best.indices[:, None], -1.0)
    return torch.stack(chosen, -1)[:, None]


def mix_pairs(rows: Tensor, partner_rows: Tensor | None, sample: Sample, estimator: str) -> Tensor:
    """The sampled rows as the estimator defines them.

    `"gate"` scales each row; `"soft"` mixes each row with its partner's; `"straight_through"` returns the sampled row
    itself with the gradient of that mixture.

    Args:
        rows, partner_rows: `(B, S, K, C)`.
        sample: the sample with its weights.
        estimator: `sampling_estimator` of the configuration.
    """
    if sample.weights is None:
        return rows
    weights = sample.weights[..., None].to(rows.dtype)
    if partner_rows is None:
        return weights * rows
    mixed = weights * rows + (1 - weights) * partner_rows
    if estimator == "soft":
        return mixed
    return rows.detach() + (mixed - mixed.detach())


class SFTSampler(nn.Module):
    """Scores tokens by importance and draws (training) or selects (inference) K of them.

    Logits are s_i = importance_scale * (w . LN(x_i) + b), with a layer norm without parameters. In training the K
    largest s_i + sampling_noise * Gumbel(0, 1) are taken, which samples without replacement.
    """

    bias: nn.Parameter | None
    extra_tokens: nn.Parameter | None

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.config = config
        samples, width = config.num_samples, config.hidden_size
        self.weight = nn.Parameter(torch.empty(samples, width))
        # Differences of scores are all that straight-through sees, so a bias would get no gradient.
        has_bias = config.sampling_estimator != "straight_through"
        self.register_parameter("bias", nn.Parameter(torch.empty(samples)) if has_bias else None)
        extra = nn.Parameter(torch.empty(samples, config.num_extra_tokens, width)) if config.num_extra_tokens else None
        self.register_parameter("extra_tokens", extra)
        self.selector: Selector | None = None
        self.samples_at_inference = False

    def importance_scores(self, hidden_states: Tensor) -> Tensor:
        """Importance logits of the tokens and, behind them, the extra tokens: `(B, S, N + E)`, at least float32."""
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            weight = self.weight.to(dtype)
            normed = F.layer_norm(hidden_states.to(dtype), hidden_states.shape[-1:], eps=self.config.norm_eps)
            scores = F.linear(normed, weight).transpose(1, 2)
            if self.extra_tokens is not None:
                extra = F.layer_norm(self.extra_tokens.to(dtype), hidden_states.shape[-1:], eps=self.config.norm_eps)
                extra_scores = torch.einsum("sed,sd->se", extra, weight)
                scores = torch.cat([scores, extra_scores.expand(scores.shape[0], -1, -1)], dim=-1)
            if self.bias is not None:
                scores = scores + self.bias.to(dtype)[:, None]
            return scores * self.config.importance_scale

    def forward(
        self, hidden_states: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None
    ) -> tuple[Sample, Tensor]:
        """Sample k tokens.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool, `True` for real tokens.
            k: sample size; rows with fewer tokens leave slots unused.
            relation_inputs: what a selector of `set_sampler` may look at (points of a cloud, ...).

        Returns:
            The sample, and the importance scores `(B, S, N + E)`.
        """
        scores = self.importance_scores(hidden_states)
        mask = F.pad(mask, (0, self.config.num_extra_tokens), value=True)
        noise = float(self.config.sampling_noise)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            if self.selector is not None:
                sample = self._custom_sample(scores, mask, k, relation_inputs)
            elif self.training or self.samples_at_inference:
                sample = self._random_sample(scores, mask, k, noise)
            else:
                sample = self._deterministic_sample(scores, mask, k, noise)
        # Handed over: weights that a tool has moved elsewhere are here during this call only.
        return sample._replace(extra_tokens=self.extra_tokens), scores

    def _random_sample(self, scores: Tensor, mask: Tensor, k: int, noise: float) -> Sample:
        noisy = scores
        if noise > 0:
            uniform = torch.rand_like(scores).clamp(min=torch.finfo(scores.dtype).tiny)
            noisy = scores - noise * (-uniform.log()).clamp(min=torch.finfo(scores.dtype).tiny).log()
            with torch.no_grad():
                masked = noisy.masked_fill(~mask[:, None], -torch.inf)
                top = F.pad(masked, (0, k), value=-torch.inf).topk(k, dim=-1, sorted=False)
                indices = torch.where(top.values > -torch.inf, top.indices, -1)
        else:
            indices = topk_selection(scores.detach(), mask, k)
        if self.config.sampling_estimator == "gate":
            return self._gated(indices, scores)

        partners = uniform_partners(indices, mask, k)
        chosen, other = noisy.gather(-1, indices.clamp(min=0)), noisy.gather(-1, partners.clamp(min=0))
        if self.config.sampling_estimator == "soft":
            # Equals softplus(z_t) / (softplus(z_t) + softplus(z_p)), without its NaN gradients.
            logits = log_softplus(chosen) - log_softplus(other)
        else:
            logits = (chosen - other) / self.config.sampling_temperature
        paired = (indices >= 0) & (partners >= 0)
        weights = torch.where(paired, torch.sigmoid(logits), 1.0)
        return Sample(indices, indices >= 0, weights, torch.where(paired, partners, -1))

    def _deterministic_sample(self, scores: Tensor, mask: Tensor, k: int, noise: float) -> Sample:
        detached = scores.detach()
        if self.config.resolved_sampling_inference == "systematic":
            indices = systematic_selection(detached, mask, k, noise)
        else:
            if noise >= LARGE_NOISE and not torch.compiler.is_compiling():
                logger.warning_once(
                    f'`sampling_inference="topk"` with `sampling_noise={noise}` selects tokens that training hardly '
                    'saw together, which usually costs much accuracy: use "systematic" (or None), or less noise.'
                )
            indices = topk_selection(detached, mask, k)
        if self.config.sampling_estimator == "gate":
            return self._gated(indices, scores)
        return Sample(indices, indices >= 0)

    def _gated(self, indices: Tensor, scores: Tensor) -> Sample:
        gates = 2 * torch.sigmoid(scores.gather(-1, indices.clamp(min=0)))
        return Sample(indices, indices >= 0, gates)

    def _custom_sample(self, scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None) -> Sample:
        assert self.selector is not None
        indices = self.selector(scores.detach(), mask, k, relation_inputs)
        batch, samples, length = scores.shape
        if indices.shape not in ((batch, 1, k), (batch, samples, k)):
            raise ValueError(
                f"The sampler given to `set_sampler` returned indices of shape {tuple(indices.shape)}: "
                f"expected ({batch}, {samples}, {k}) or ({batch}, 1, {k})."
            )
        indices = indices.expand(batch, samples, k)
        if not torch.compiler.is_compiling():
            if bool((indices >= length).any()):
                raise ValueError(f"The sampler given to `set_sampler` returned an index beyond the {length} tokens.")
            real = mask[:, None].expand(-1, samples, -1).gather(-1, indices.clamp(min=0))
            if not bool((real | (indices < 0)).all()):
                raise ValueError("The sampler given to `set_sampler` returned a padded token: it must heed the mask.")
        if self.config.sampling_estimator == "gate":
            return self._gated(indices, scores)
        # The scorer has no say here, yet must be part of the graph: distributed training waits for its gradient.
        return Sample(indices, indices >= 0, scores.new_ones(indices.shape) + 0 * scores.sum())


__all__ = [
    "SFTSampler",
    "Sample",
    "Selector",
    "farthest_point_selector",
    "random_selector",
    "systematic_selection",
    "topk_selection",
]
