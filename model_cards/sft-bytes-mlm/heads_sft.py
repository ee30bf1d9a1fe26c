"""Readout and losses that the heads of all modalities share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .configuration_sft import SFTConfig, SFTEncoderConfig
from .initialization_sft import unit_variance_linear
from .validation_sft import can_check_values, check_shape, resolve_mask


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
    """Pooling, then two linear layers with the configuration's activation between them."""

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.pooling = SFTPooling(config)
        self.dense = unit_variance_linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, int(config.num_labels or 0))

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Map token states `(B, N, D)` to logits `(B, num_labels)`."""
        pooled = self.dropout(self.pooling(hidden_states, mask))
        return self.out_proj(self.dropout(self.activation(self.dense(pooled))))


class SFTSegmentationHead(nn.Module):
    """Labels every token from its state and the pooled state of its row, by two linear layers."""

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


def join_pairs(
    input_ids: Tensor, pair_input_ids: Tensor, attention_mask: Tensor | None, pair_attention_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One batch of the two sequences of each pair, one behind the other.

    Args:
        input_ids: `(B, N)` long.
        pair_input_ids: `(B, M)` long.
        attention_mask, pair_attention_mask: their masks, or `None`.

    Returns:
        Ids and bool mask, `(2 B, max(N, M))` each.

    Raises:
        ValueError: shapes or masks that do not fit.
    """
    for name, ids in (("input_ids", input_ids), ("pair_input_ids", pair_input_ids)):
        check_shape(name, ids, (len(input_ids), None), "(pairs, tokens)")
    masks = resolve_mask(attention_mask, input_ids), resolve_mask(pair_attention_mask, pair_input_ids)
    length = max(input_ids.shape[1], pair_input_ids.shape[1])

    def join(*parts: Tensor) -> Tensor:
        return torch.stack([F.pad(part, (0, length - part.shape[1])) for part in parts], dim=1).flatten(0, 1)

    return join(input_ids, pair_input_ids), join(*masks)


class SFTPairClassificationHead(nn.Module):
    """Classifies two rows u and v, pooled each by itself, from u, v, their product and their difference."""

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.pooling = SFTPooling(config)
        self.dense = unit_variance_linear(4 * config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, int(config.num_labels or 0))

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Map the states `(2 B, N, D)` of pairs, as [`join_pairs`] orders them, to logits `(B, num_labels)`."""
        first, second = self.dropout(self.pooling(hidden_states, mask)).unflatten(0, (-1, 2)).unbind(1)
        pair = torch.cat([first, second, first * second, first - second], dim=-1)
        return self.out_proj(self.dropout(self.activation(self.dense(pair))))


class SFTTokenHead(nn.Module):
    """Dropout and a linear layer on every token."""

    def __init__(self, config: SFTEncoderConfig, num_outputs: int):
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, num_outputs)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map token states `(B, N, D)` to `(B, N, num_outputs)`."""
        return self.out_proj(self.dropout(hidden_states))


class SFTMaskedLMHead(nn.Module):
    """Logits over the vocabulary: linear, activation, norm, then the transposed token embeddings.

    States are scaled by `hidden_size**-0.5`, because token embeddings start with unit variance.
    """

    def __init__(self, config: SFTConfig):
        super().__init__()
        self.dense = unit_variance_linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.scale = config.hidden_size**-0.5

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map token states `(B, N, D)` to logits `(B, N, vocab_size)`."""
        return self.decoder(self.norm(self.activation(self.dense(hidden_states))) * self.scale)


def resolve_problem_type(config: PreTrainedConfig, labels: Tensor) -> str:
    """The kind of target: `config.problem_type`, or what `num_labels` and the labels' dtype say."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def classification_loss(
    logits: Tensor, labels: Tensor, config: PreTrainedConfig, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Cross-entropy, binary cross-entropy or squared error by problem type, averaged over the labels present.

    NaN counts as missing, and so does -100 but in regression, where it may be a target.

    Args:
        logits: `(..., num_labels)`.
        labels: `(...)` long for single-label classification; `(..., num_labels)` float otherwise, or `(...)` for a
            single target.
        config: gives `problem_type` and `num_labels`.
        num_items_in_batch: labels over all accumulated batches, which the sum is divided by instead; Trainer gives it
            so that gradient accumulation equals one large batch.

    Raises:
        ValueError: the labels' shape or values do not fit.
    """
    problem_type = resolve_problem_type(config, labels)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    single_label = problem_type == "single_label_classification"
    if not single_label and logits.shape[-1] == 1 and labels.shape == logits.shape[:-1]:
        labels = labels[..., None]
    expected = logits.shape[:-1] if single_label else logits.shape
    if labels.shape != expected:
        raise ValueError(
            f"`labels` has shape {tuple(labels.shape)}: {problem_type} with {config.num_labels} labels needs "
            f"{tuple(expected)}."
        )
    labels = labels.to(logits.device)
    if single_label:
        return class_loss("labels", logits, labels, num_items_in_batch)
    present = ~labels.isnan()
    if problem_type != "regression":
        present &= labels != -100
    targets = torch.where(present, labels, 0).to(logits.dtype)
    if problem_type == "regression":
        each = F.mse_loss(logits, targets, reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _mean(torch.where(present, each, 0.0).sum(), present, num_items_in_batch)


def class_loss(name: str, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy averaged over the labels present, -100 counting as missing.

    Args:
        name: of the argument that holds the labels, for messages.
        logits: `(..., C)`.
        labels: `(...)` classes.
        num_items_in_batch: as for [`classification_loss`].

    Raises:
        ValueError: labels out of range.
    """
    logits, labels = logits.to(torch.promote_types(logits.dtype, torch.float32)), labels.to(logits.device)
    present = labels != -100
    if can_check_values(labels) and bool((present & ((labels < 0) | (labels >= logits.shape[-1]))).any()):
        raise ValueError(f"`{name}` must be -100 (missing) or from 0 to {logits.shape[-1] - 1}.")
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten().long(), ignore_index=-100, reduction="sum")
    return _mean(total, present, num_items_in_batch)


def token_classification_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor,
    config: PreTrainedConfig,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """[`classification_loss`] of logits `(B, N, num_labels)`, labels of padding being ignored.

    Args:
        labels: `(B, N)` or `(B, N, num_labels)`.
        mask: `(B, N)` bool.

    Raises:
        ValueError: the labels' shape or values do not fit.
    """
    if labels.shape[:2] != mask.shape:
        raise ValueError(f"`labels` has shape {tuple(labels.shape)}: expected {tuple(mask.shape)}, one per token.")
    missing = torch.nan if labels.is_floating_point() else -100
    labels = labels.masked_fill(~mask if labels.dim() == 2 else ~mask[..., None], missing)
    return classification_loss(logits, labels, config, num_items_in_batch)


def link_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Binary cross-entropy averaged over the pairs with a label.

    Args:
        logits: `(B, P)`.
        labels: `(B, P)`, 1 for links, 0 for none, -100 for missing.
        num_items_in_batch: as for [`classification_loss`].

    Raises:
        ValueError: the labels' shape or values do not fit.
    """
    check_shape("labels", labels, tuple(logits.shape), "one entry per pair")
    present = labels != -100
    if can_check_values(labels) and bool((present & (labels != 0) & (labels != 1)).any()):
        raise ValueError("`labels` must be -100 (missing) or from 0 to 1.")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = torch.where(present, labels, 0).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _mean(torch.where(present, each, 0.0).sum(), present, num_items_in_batch)


def _mean(total: Tensor, present: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    if num_items_in_batch is None:
        return total / present.sum().clamp(min=1)
    return total / torch.as_tensor(num_items_in_batch, device=total.device)


__all__ = [
    "SFTClassificationHead",
    "SFTMaskedLMHead",
    "SFTPairClassificationHead",
    "SFTPooling",
    "SFTSegmentationHead",
    "SFTTokenHead",
    "class_loss",
    "classification_loss",
    "join_pairs",
    "link_loss",
    "token_classification_loss",
]
