"""Losses that the models of all modalities share, averaged over the labels that are present."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig

from ..nn.checks import can_check_values, check_shape


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
