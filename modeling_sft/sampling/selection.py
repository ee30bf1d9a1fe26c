"""Deterministic selection of K tokens by their importance scores (docs/design.md, section 2.4).

Shapes: B rows, N tokens (extra tokens included), S samples (one per layer, or one per head), K sampled tokens.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.checks import can_check_values

# Scores are compared on this grid, so that equal tokens stay equal in batches of any shape.
STEPS_PER_UNIT = 2**12
# Contents need a finer grid: on that of the scores, neighbours in a molecule often tie twice.
CONTENT_STEPS_PER_UNIT = 2**16
# A sort key of 64 bits holds the steps below the best score (differences of up to 1024), the content (from -4 to 4,
# standard normal if the state is) and the position.
SCORE_BITS = 22
CONTENT_BITS = 19
MAX_LENGTH = 2 ** (62 - SCORE_BITS - CONTENT_BITS)
PADDING_KEY = -(2**62)
PROBABILITY_BITS = 40
# The search halves the interval of the offset of the inclusion probabilities this many times.
OFFSET_BITS = 40
NEWTON_STEPS = 5
# Candidates around the result of the Newton steps; their distance exceeds the rounding error in float32.
NEWTON_ERRORS = (-(2.0**-20), 0.0, 2.0**-20)


def _steps(values: Tensor, per_unit: float, bits: int) -> Tensor:
    """Values as integer multiples of a step, bounded to so many bits and a sign."""
    limit = float(2**bits)
    return (values * per_unit).round().clamp(-limit, limit - 1).to(torch.int64)


def _selection_keys(steps: Tensor, content: Tensor, mask: Tensor) -> Tensor:
    """Distinct sort keys `(B, S, N)`, which order by score, then by content, then by lower index."""
    length = steps.shape[-1]
    if not torch.compiler.is_compiling() and length >= MAX_LENGTH:
        raise ValueError(f"A row has {length} tokens: the selection orders fewer than {MAX_LENGTH}.")
    mask = mask[:, None]
    best = steps.masked_fill(~mask, -(2**40)).amax(-1, keepdim=True)
    below = (steps - best).clamp(min=-(2**SCORE_BITS))
    contents = _steps(content, CONTENT_STEPS_PER_UNIT, CONTENT_BITS - 1) + 2 ** (CONTENT_BITS - 1)
    keys = below * 2**CONTENT_BITS + contents
    positions = torch.arange(length, device=steps.device)
    return torch.where(mask, keys * length + (length - 1 - positions), PADDING_KEY)


def topk_selection(scores: Tensor, content: Tensor, mask: Tensor, k: int) -> Tensor:
    """The k tokens with the largest scores; equal ones, on a grid of 2^-12, go by content, then by index.

    Args:
        scores: `(B, S, N)` float.
        content: `(B, S, N)` or `(B, 1, N)` float, a number that tells tokens apart whatever their order.
        mask: `(B, N)` bool, `True` for real tokens.
        k: sample size.

    Returns:
        `(B, S, k)` long, -1 where a row has fewer than k tokens.

    Raises:
        ValueError: rows of 2^21 tokens or more.
    """
    keys = _selection_keys(_steps(scores, STEPS_PER_UNIT, 36), content, mask)
    # Add k candidates of padding instead of limiting k to N, so that export needs no condition on N.
    top = F.pad(keys, (0, k), value=PADDING_KEY).topk(k, dim=-1)
    return torch.where(top.values > PADDING_KEY, top.indices, -1)


def _sorted_by_key(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The keys of [`_selection_keys`] in descending order, and the positions they came from; `(B, S, N)` each."""
    if can_check_values(keys):
        # Sort values only, which NumPy does several times faster, and compute the positions from the keys.
        values = torch.from_numpy(np.sort(-keys.numpy(), axis=-1)).neg_()
        return values, keys.shape[-1] - 1 - values % keys.shape[-1]
    ordered = keys.sort(dim=-1, descending=True)
    return ordered.values, ordered.indices


def _fixed_point_probabilities(distance: Tensor, offset: Tensor) -> Tensor:
    """1 - exp(-exp(distance + offset)) in units of 2^-40, as long; monotone in the offset."""
    return (distance + offset).exp_().neg_().expm1_().mul_(-(2.0**PROBABILITY_BITS)).round_().to(torch.int64)


def _approximate_offset(distance: Tensor, sizes: Tensor) -> Tensor:
    """The offset at which probabilities sum to `sizes`, by Newton steps; it may be wrong if scores lie far apart."""
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
    """The smallest offset u at which the probabilities sum to `sizes` or more, exact to 2e-11 or to the last bit.

    Args:
        distance: `(B, S, N)` float, scores minus the `sizes`-th largest, in units of the noise; -inf for padding.
        sizes: `(B, 1, 1)` long, tokens to take.
        counts: `(B, 1, 1)` long, real tokens.

    Returns:
        `(B, S, 1)` in the dtype of `distance`.
    """
    target = sizes * 2**PROBABILITY_BITS

    def bracket(candidates: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The closest bounds below and above u among the candidates `(B, S, C)`, `low` and `high`."""
        probabilities = _fixed_point_probabilities(distance[:, :, None], candidates[..., None])
        reached = probabilities.sum(-1) >= target
        below, above = torch.where(reached, low, candidates), torch.where(reached, candidates, high)
        return below.amax(-1, keepdim=True), above.amin(-1, keepdim=True)

    # Relative to the k-th largest score, u lies within [-1 - log n, 4]; rows that take all tokens need no search.
    high = torch.full_like(distance[..., :1], 4.0)
    low = torch.where(counts > sizes, -1 - counts.to(distance.dtype).log(), high)
    eager = can_check_values(distance)
    if eager and distance.dtype == torch.float32:
        # Start next to the root: five Newton steps replace most bisections. This is done in float32 only, where
        # bisection ends at the same bit from any start.
        guess = _approximate_offset(distance, sizes)
        guess = torch.where((low < guess) & (guess < high), guess, high)
        low, high = bracket(guess + guess.new_tensor(NEWTON_ERRORS), low, high)
    # Bisection computes least, but in a traced graph 16 parts per step need fewer steps and keep the graph short.
    parts = 2 if eager else 16
    fractions = torch.arange(1, parts, dtype=distance.dtype, device=distance.device) / parts
    for _ in range(math.ceil(OFFSET_BITS / math.log2(parts))):
        candidates = low + (high - low) * fractions
        if eager and not bool(((low < candidates) & (candidates < high)).any()):
            break
        low, high = bracket(candidates, low, high)
    return high


def systematic_selection(scores: Tensor, content: Tensor, mask: Tensor, k: int, noise: float) -> Tensor:
    """K tokens whose frequencies follow the inclusion probabilities of Gumbel top-k sampling, without randomness.

    The probabilities are pi_i = 1 - exp(-exp(s_i / noise + u)), where u makes them sum to k. A running sum of pi in
    score order takes each token at which it passes one of 1/2, 3/2, ..., k - 1/2 (systematic sampling with a fixed
    start). Sums of 64-bit integers give exactly k distinct tokens, whatever the padding and the batch shape.

    Args:
        scores: `(B, S, N)` float.
        content: `(B, S, N)` or `(B, 1, N)` float, orders tokens of equal scores, as in [`topk_selection`].
        mask: `(B, N)` bool, `True` for real tokens.
        k: sample size.
        noise: factor of the Gumbel noise that the scores were trained with; above 0.

    Returns:
        `(B, S, k)` long, -1 where a row has fewer than k tokens.

    Raises:
        ValueError: rows of 2^21 tokens or more.
    """
    steps = _steps(scores, STEPS_PER_UNIT, 36)
    keys = _selection_keys(steps, content, mask)
    ordered_keys, order = _sorted_by_key(keys)
    counts = mask.sum(-1)[:, None, None]
    sizes = counts.clamp(max=k)

    ordered_steps = steps.gather(-1, order)
    threshold = ordered_steps.gather(-1, (sizes - 1).clamp(min=0).expand(*steps.shape[:-1], 1))
    distance = (ordered_steps - threshold).to(scores.dtype) / (STEPS_PER_UNIT * noise)
    distance = distance.masked_fill(ordered_keys == PADDING_KEY, -torch.inf)

    probabilities = _fixed_point_probabilities(distance, _offset(distance, sizes, counts))
    total = probabilities.cumsum(-1) + 2 ** (PROBABILITY_BITS - 1)
    rank = total >> PROBABILITY_BITS
    picked = (rank > (total - probabilities) >> PROBABILITY_BITS) & (rank <= sizes)
    slots = torch.where(picked, rank - 1, k)
    # Slot k collects the tokens that were not picked.
    indices = slots.new_full((*slots.shape[:-1], k + 1), -1)
    return indices.scatter(-1, slots, order)[..., :k]
