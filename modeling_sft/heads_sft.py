"""Readout and losses that the heads of all modalities share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .configuration_sft import SFTEncoderConfig
from .initialization_sft import unit_variance_linear


class SFTPooling(nn.Module):
    """One vector per row from its real tokens: learned attention weights, mean, or maximum."""

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.pooling = config.pooling
        self.weight_proj = nn.Linear(config.hidden_size, 1, bias=False) if config.pooling == "attention" else None

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Pool `(B, N, D)` under the mask `(B, N)` to `(B, D)`."""
        if self.pooling == "max":
            return hidden_states.masked_fill(~mask[..., None], torch.finfo(hidden_states.dtype).min).amax(1)
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

    Labels of -100, and NaN in float labels, count as missing.

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
        check_values = labels.device.type == "cpu" and not torch.compiler.is_compiling()
        if check_values and bool(((labels != -100) & ((labels < 0) | (labels >= logits.shape[-1]))).any()):
            raise ValueError(f"`labels` must be -100 (missing) or from 0 to {logits.shape[-1] - 1}.")
        present = labels != -100
        total = F.cross_entropy(logits.flatten(0, -2), labels.flatten().long(), ignore_index=-100, reduction="sum")
    else:
        present = ~((labels == -100) | labels.isnan())
        targets = torch.where(present, labels, 0).to(logits.dtype)
        if problem_type == "regression":
            each = F.mse_loss(logits, targets, reduction="none")
        else:
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        total = torch.where(present, each, 0.0).sum()
    if num_items_in_batch is None:
        return total / present.sum().clamp(min=1)
    return total / torch.as_tensor(num_items_in_batch, device=total.device)


__all__ = ["SFTClassificationHead", "SFTPooling", "SFTSegmentationHead", "classification_loss"]
