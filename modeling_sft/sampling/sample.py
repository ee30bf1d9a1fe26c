"""The sample that the sampler hands to the attention: the tokens that a layer attends to."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Sample(NamedTuple):
    """The tokens that a layer attends to.

    Attributes:
        indices: `(B, S, K)` long, the token of each slot; -1 in unused slots. `N + e` is extra token e.
        valid: `(B, S, K)` bool, `True` for slots in use.
        weights: `(B, S, K)` float, weight of the sampled token in its mixture, or its gate; `None`, or 1, for plain
            tokens, and NaN where importance scores are NaN.
        partners: `(B, S, K)` long, the unselected token paired with each slot, or -1; `None` without pairs.
        extra_tokens: `(S, E, D)` float, the states of the extra tokens; `None` if there are none.
    """

    indices: Tensor
    valid: Tensor
    weights: Tensor | None = None
    partners: Tensor | None = None
    extra_tokens: Tensor | None = None


# (scores (B, S, N) float, mask (B, N) bool, K, relation inputs of the modality or None) -> indices (B, 1 or S, K).
Selector = Callable[[Tensor, Tensor, int, tuple | None], Tensor]
