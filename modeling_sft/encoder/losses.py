"""Losses that the models of all modalities share, averaged over the labels that are present."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig

from ..nn.checks import IGNORED_LABEL, can_check_values, check_classes, check_shape, check_shares, is_present


def resolve_problem_type(config: PreTrainedConfig, labels: Tensor) -> str:
    """The kind of target: `config.problem_type`, or what `num_labels` and the labels' dtype say."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def check_labels(labels: Tensor, config: PreTrainedConfig) -> None:
    """Check that labels have values that a model's classification or regression can learn.

    Losses check those of the CPU alone: elsewhere, looking at values would wait for the device. Collators check all.

    Args:
        labels: as for [`classification_loss`].
        config: gives `problem_type` and `num_labels`.

    Raises:
        ValueError: a class is out of range, or one of several labels outside [0, 1]; -100 and NaN are missing.
    """
    problem_type = resolve_problem_type(config, labels)
    remedy = (
        f'`problem_type` is "{problem_type}": write 0 and 1 in place of -1 and 1, or set `problem_type="regression"` '
        "for numbers."
    )
    if problem_type == "single_label_classification":
        check_classes("labels", labels, int(config.num_labels or 0), remedy)
    elif problem_type != "regression":
        check_shares("labels", labels, remedy)


def present_labels(labels: Tensor, config: PreTrainedConfig) -> Tensor:
    """Which labels are present, a bool tensor in their shape: the rule of losses and of `SFTTrainer`, as of metrics.

    NaN is missing, and so is -100, but for floats in regression, where it is a number like any other.
    """
    is_number = labels.is_floating_point() and resolve_problem_type(config, labels) == "regression"
    return ~labels.isnan() if is_number else is_present(labels)


def share_of_step(loss: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """A batch's mean loss, weighted by its share of the labels of the optimizer step.

    So the losses of accumulated batches add up to that of one large batch. Transformers' Trainer counts all labels
    but -100, which is wrong by those that are NaN: then the mean of a single batch is still exact, and batches are
    weighted by all their labels. `SFTTrainer` counts those that are present.

    Args:
        loss: mean over the batch's labels that are present.
        labels: as the model was given them.
        num_items_in_batch: labels of all batches and processes of the step, counted as by Trainer; None for one batch.
    """
    if num_items_in_batch is None:
        return loss
    counted = (labels != IGNORED_LABEL).sum().to(loss)
    return loss * (counted / torch.as_tensor(num_items_in_batch).to(loss))


def classification_loss(logits: Tensor, labels: Tensor, config: PreTrainedConfig) -> Tensor:
    """Cross-entropy, binary cross-entropy or squared error by problem type, averaged over the labels present.

    Args:
        logits: `(..., num_labels)`.
        labels: `(...)` long for single-label classification; `(..., num_labels)` float otherwise, or `(...)` for a
            single target. Several labels lie in [0, 1]; where values are not checked, others make the loss NaN.
        config: gives `problem_type` and `num_labels`.

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
    if can_check_values(labels):
        check_labels(labels, config)
    labels = labels.to(logits.device)
    if single_label:
        return _cross_entropy(logits, labels)
    if problem_type != "regression":
        return _binary_loss(logits, labels)
    present = present_labels(labels, config)
    targets = torch.where(present, labels, 0).to(logits.dtype)
    each = F.mse_loss(logits, targets, reduction="none")
    return _mean(torch.where(present, each, 0.0).sum(), present)


def _binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of targets in [0, 1] that are present; NaN if another one is."""
    present = is_present(labels)
    targets = torch.where(present, labels, 0).to(logits.dtype)
    # Where values are not checked, a target out of range would train towards a loss of minus infinity.
    targets = targets.masked_fill((targets < 0) | (targets > 1), torch.nan)
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _mean(torch.where(present, each, 0.0).sum(), present)


def class_loss(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy averaged over the labels present, -100 and NaN counting as missing.

    Args:
        name: of the argument that holds the labels, for messages.
        logits: `(..., C)`.
        labels: `(...)` classes.

    Raises:
        ValueError: labels out of range.
    """
    if can_check_values(labels):
        check_classes(name, labels, logits.shape[-1])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _cross_entropy(logits, labels.to(logits.device))


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    present = is_present(labels)
    targets = torch.where(present, labels, IGNORED_LABEL).flatten().long()
    total = F.cross_entropy(logits.flatten(0, -2), targets, ignore_index=IGNORED_LABEL, reduction="sum")
    return _mean(total, present)


def token_classification_loss(logits: Tensor, labels: Tensor, mask: Tensor, config: PreTrainedConfig) -> Tensor:
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
    # Small integers may have no -100.
    labels = labels if labels.is_floating_point() else labels.long()
    labels = labels.masked_fill(~mask if labels.dim() == 2 else ~mask[..., None], missing)
    return classification_loss(logits, labels, config)


def link_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy averaged over the pairs with a label.

    Args:
        logits: `(B, P)`.
        labels: `(B, P)`, 1 for links, 0 for none, -100 for missing.

    Raises:
        ValueError: the labels' shape or values do not fit.
    """
    check_shape("labels", labels, tuple(logits.shape), "one entry per pair")
    if can_check_values(labels):
        check_classes("labels", labels, 2)
    return _binary_loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)


def _mean(total: Tensor, present: Tensor) -> Tensor:
    return total / present.sum().clamp(min=1)
