"""Output classes: those of Transformers with what the sampler chose."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput

from .context_hashes import ContextHashes


@dataclass
class SFTModelOutput(ModelOutput):
    """Output of a backbone.

    Args:
        last_hidden_state: `(B, N, hidden_size)`, token states after the last layer.
        hidden_states: with `output_hidden_states`, the embeddings and each layer's output, `(B, N, hidden_size)` each.
        attentions: with `output_attentions`, each layer's weights over its sampled tokens, `(B, H, N, K)` each. Here
            and below, K is at most the number of tokens, extra ones included.
        sampled_tokens: with `output_sampled_tokens`, each layer's sampled indices, long `(B, S, K)` each, S being 1 or
            H; -1 in unused slots, N + e for extra token e.
        importance_scores: with `output_importance_scores`, each layer's importance logits, `(B, N, S)` each.
        context_hashes: ids of the neighbourhoods of tokens, in models that hash them.
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    sampled_tokens: tuple[torch.Tensor, ...] | None = None
    importance_scores: tuple[torch.Tensor, ...] | None = None
    context_hashes: ContextHashes | None = None


@dataclass
class SFTClassifierOutput(ModelOutput):
    """Output of a classification or regression head.

    Args:
        loss: scalar, when labels were given.
        logits: `(B, num_labels)`, or `(B, N, num_labels)` from heads that label every token.
        hidden_states, attentions, sampled_tokens, importance_scores: as in [`SFTModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    sampled_tokens: tuple[torch.Tensor, ...] | None = None
    importance_scores: tuple[torch.Tensor, ...] | None = None

    @classmethod
    def of(cls, outputs: SFTModelOutput, logits: torch.Tensor, loss: torch.Tensor | None) -> "SFTClassifierOutput":
        """A head's output, with what its backbone recorded."""
        return cls(loss=loss, logits=logits, **recorded(outputs))


@dataclass
class SFTPreTrainingOutput(ModelOutput):
    """Output of a model in pre-training, whose targets are its inputs' own.

    Args:
        loss: scalar, the mean of `row_losses`.
        row_losses: `(B,)`, the loss of each row.
        hidden_states, attentions, sampled_tokens, importance_scores: as in [`SFTModelOutput`].
    """

    loss: torch.Tensor | None = None
    row_losses: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    sampled_tokens: tuple[torch.Tensor, ...] | None = None
    importance_scores: tuple[torch.Tensor, ...] | None = None


@dataclass
class SFTQuestionAnsweringOutput(ModelOutput):
    """Output of the question-answering head.

    Args:
        loss: scalar, when the positions were given: the mean of both cross-entropies.
        start_logits, end_logits: `(B, N)`, scores of each token as first and as last one of the answer; padding has
            the lowest number of the dtype.
        hidden_states, attentions, sampled_tokens, importance_scores: as in [`SFTModelOutput`].
    """

    loss: torch.Tensor | None = None
    start_logits: torch.Tensor | None = None
    end_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    sampled_tokens: tuple[torch.Tensor, ...] | None = None
    importance_scores: tuple[torch.Tensor, ...] | None = None


def recorded(outputs: SFTModelOutput) -> dict[str, Any]:
    """What a backbone recorded beside its states."""
    return {
        name: getattr(outputs, name) for name in ("hidden_states", "attentions", "sampled_tokens", "importance_scores")
    }
