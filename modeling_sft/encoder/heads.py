"""Readouts that the models of all modalities share: from token states to logits."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from ..configuration_sft import SFTContextConfig, SFTEncoderConfig
from ..nn.initialization import unit_variance_linear
from .context_hashes import ContextHashes, SFTContextCounts
from .losses import classification_loss, share_of_step, token_classification_loss
from .outputs import SFTClassifierOutput, SFTModelOutput


class SFTPooling(nn.Module):
    """One vector per row from its real tokens: learned attention weights, mean, maximum, or the first token."""

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.pooling = config.pooling
        self.weight_proj = nn.Linear(config.hidden_size, 1, bias=False) if config.pooling == "attention" else None

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Pool `(B, N, D)` under the mask `(B, N)` to `(B, D)`."""
        if self.pooling == "max":
            states = hidden_states.masked_fill(~mask[..., None], torch.finfo(hidden_states.dtype).min)
            # amax is faster forward, but its backward compares every element; that of max scatters to the winners.
            return states.max(1).values if states.requires_grad else states.amax(1)
        if self.pooling == "first":
            # Under left padding, the first real token is not at index 0.
            first = mask.int().argmax(1)[:, None, None].expand(-1, 1, hidden_states.shape[-1])
            return hidden_states.gather(1, first).squeeze(1)  # take_along_dim would fix the shapes in torch.export
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        if self.weight_proj is None:
            weights = mask.to(dtype) / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            logits = self.weight_proj(hidden_states).squeeze(-1).to(dtype)
            weights = logits.masked_fill(~mask, torch.finfo(dtype).min).softmax(-1)
        return torch.einsum("bn,bnd->bd", weights.to(hidden_states.dtype), hidden_states)


class SFTClassificationHead(nn.Module):
    """Pooling, then two linear layers with the configuration's activation between them.

    Counts of neighbourhoods, of models that have them, enter the logits by linear maps of the counts and of their
    activations: a linear model of bags of neighbourhoods is a special case (docs/design.md, section 6).

    Args:
        config: sizes and choices of the model.
        num_vectors: pooled vectors of D numbers that a row has, see `_per_row`.
        num_features: numbers of a whole row that stand beside the pooled states.
        num_outputs: `num_labels` unless told otherwise.
    """

    labels_tokens = False

    def __init__(
        self, config: SFTEncoderConfig, num_vectors: int = 1, num_features: int = 0, num_outputs: int | None = None
    ):
        super().__init__()
        num_outputs = int(config.num_labels or 0) if num_outputs is None else num_outputs
        self.pooling = SFTPooling(config)
        self.dense = unit_variance_linear(num_vectors * config.hidden_size + num_features, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, num_outputs)
        self.counts: Any = None
        if config.num_context_counts:
            self.counts = SFTContextCounts(cast(SFTContextConfig, config))
            width = 2 * num_vectors * config.num_context_counts
            self.counts_proj = nn.Linear(width, num_outputs, bias=False)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor,
        context_hashes: ContextHashes | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Map token states, the neighbourhoods of tokens and normalised features of rows to logits.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool.
            context_hashes: of models that count them.
            features: `(B, num_features)`, or `None` for none.

        Returns:
            `(B, num_labels)`.
        """
        logits = self.logits_of_states(hidden_states, mask, features)
        return logits if self.counts is None else logits + self.logits_of_counts(context_hashes)

    def logits_of_states(self, hidden_states: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        """The part of the logits that token states and features of rows give."""
        pooled = self._per_row(self.dropout(self.pooling(hidden_states, mask)))
        if features is not None:
            pooled = torch.cat([pooled, self.dropout(features.to(pooled.dtype))], dim=-1)
        return self.out_proj(self.dropout(self.activation(self.dense(pooled))))

    def logits_of_counts(self, context_hashes: ContextHashes | None) -> Tensor:
        """The part of the logits that counts of neighbourhoods give, of models that have them."""
        return self.counts_proj(self.dropout(self.count_states(context_hashes)))

    def count_states(self, context_hashes: ContextHashes | None) -> Tensor:
        """Vectors of the counts of neighbourhoods, and their activations, of the rows that the logits are for."""
        counts = self._per_row(self.counts(context_hashes))
        return torch.cat([counts, self.activation(counts)], dim=-1)

    def _per_row(self, vectors: Tensor) -> Tensor:
        """What the logits of a row are computed from, `(B, num_vectors * D)`, given a vector `(B, D)` of each row."""
        return vectors


class SFTSegmentationHead(nn.Module):
    """Labels every token from its state and the pooled state of its row, by two linear layers."""

    labels_tokens = True

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.pooling = SFTPooling(config)
        self.token_dense = unit_variance_linear(config.hidden_size, config.hidden_size)
        self.pooled_dense = unit_variance_linear(config.hidden_size, config.hidden_size, bias=False)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, int(config.num_labels or 0))

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Map token states `(B, N, D)` to logits `(B, N, num_labels)`."""
        context = self.pooled_dense(self.pooling(hidden_states, mask))[:, None]
        return self.out_proj(self.dropout(self.activation(self.token_dense(hidden_states) + context)))


class SFTTokenHead(nn.Module):
    """Dropout and a linear layer on every token; `num_labels` outputs unless told otherwise."""

    labels_tokens = True

    def __init__(self, config: SFTEncoderConfig, num_outputs: int | None = None):
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        num_outputs = int(config.num_labels or 0) if num_outputs is None else num_outputs
        self.out_proj = nn.Linear(config.hidden_size, num_outputs)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map token states `(B, N, D)` to `(B, N, num_outputs)`; the mask has no effect."""
        return self.out_proj(self.dropout(hidden_states))


def answer(
    head: nn.Module,
    outputs: SFTModelOutput,
    mask: Tensor,
    labels: Tensor | None,
    config: SFTEncoderConfig,
    num_items_in_batch: Tensor | int | None = None,
    features: Tensor | None = None,
) -> SFTClassifierOutput:
    """What a model with a head returns: the logits, and with labels the loss.

    Args:
        head: from token states `(B, N, D)` and a mask to logits; its `labels_tokens` says whether it labels every
            token or whole rows.
        outputs: of the backbone.
        mask: `(B, N)` bool.
        labels: as in [`classification_loss`] and [`token_classification_loss`], or `None`.
        config: gives `problem_type` and `num_labels`.
        num_items_in_batch: as in [`share_of_step`].
        features: `(B, num_features)`, for heads of whole rows that have them.

    Raises:
        ValueError: the labels' shape or values do not fit.
    """
    of_rows = () if head.labels_tokens else (outputs.context_hashes, features)
    logits = head(outputs.last_hidden_state, mask, *of_rows)
    loss = None
    if labels is not None:
        if head.labels_tokens:
            loss = token_classification_loss(logits, labels, mask, config)
        else:
            loss = classification_loss(logits, labels, config)
        loss = share_of_step(loss, labels, num_items_in_batch)
    return SFTClassifierOutput.of(outputs, logits, loss)
