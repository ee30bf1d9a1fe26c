"""What every attention backend computes from."""

from typing import NamedTuple

from torch import Tensor

from .relation import PreparedRelation


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
    """A key of [`ATTENTION_SCORES`]."""
    probability: str
    """As in [`attention_probabilities`]."""
    dropout: float = 0.0
    """Probability with which weights are dropped."""
