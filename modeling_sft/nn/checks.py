"""Checks of model inputs. Shapes are always checked; values on CPU tensors outside of tracing, where it is cheap."""

import torch
from torch import Tensor

IGNORED_LABEL = -100
"""The label of what has none, as in PyTorch's losses."""

LARGEST_COORDINATE = 1e15
"""Up to here, sums of the squares of coordinates and of their differences stay far within float32."""


def is_transformed() -> bool:
    """Whether `torch.func` transforms the code that runs: vmap hides values, and shapes must not depend on them."""
    return torch._C._are_functorch_transforms_active()


def is_traced() -> bool:
    """Whether a graph is recorded or the code transformed, so that neither branch nor shape may depend on values."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transformed()


def can_check_values(x: Tensor) -> bool:
    """Whether looking at values costs no synchronisation, and breaks no graph."""
    return x.device.type == "cpu" and not is_traced()


def check_shape(name: str, x: Tensor, expected: tuple[int | None, ...], meaning: str) -> None:
    """Raise a ValueError unless `x` has the expected shape, `None` standing for any length."""
    fits = x.dim() == len(expected) and all(
        want is None or have == want for have, want in zip(x.shape, expected, strict=False)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"`{name}` has shape {tuple(x.shape)}: expected ({wanted}), {meaning}.")


def check_finite(name: str, x: Tensor, mask: Tensor) -> None:
    """Raise a ValueError if a real token of `x` (B, N, ...) holds NaN or infinity."""
    if can_check_values(x) and not bool(x[mask].isfinite().all()):
        row = int((~x.isfinite().flatten(2).all(-1) & mask).any(-1).nonzero()[0])
        raise ValueError(f"`{name}` holds NaN or infinite values (first in row {row}): clean the data, or mask them.")


def check_coordinates(name: str, x: Tensor, mask: Tensor) -> None:
    """Raise a ValueError if a real token of `x` (B, N, C) holds NaN, infinity, or more than can be squared."""
    check_finite(name, x, mask)
    if can_check_values(x) and bool((x[mask].abs() > LARGEST_COORDINATE).any()):
        row = int(((x.abs() > LARGEST_COORDINATE).any(-1) & mask).any(-1).nonzero()[0])
        raise ValueError(
            f"`{name}` holds values beyond {LARGEST_COORDINATE:g} in size (first in row {row}), whose squares are too "
            "large: scale the data."
        )


def check_range(name: str, x: Tensor, low: int, high: int, remedy: str) -> Tensor:
    """Integers of any size in `torch.long`, as look-ups want them.

    Raises:
        ValueError: `x` holds no integers, or not all from `low` to `high - 1`.
    """
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"`{name}` has dtype {x.dtype}: indices must be integers (torch.long).")
    if can_check_values(x) and x.numel() and not (low <= int(x.min()) and int(x.max()) < high):
        raise ValueError(
            f"`{name}` has values from {int(x.min())} to {int(x.max())}: they must lie between {low} and "
            f"{high - 1}. {remedy}"
        )
    return x.long()


def check_neighbors(neighbor_index: Tensor, mask: Tensor) -> None:
    """Raise a ValueError if a real point's neighbours (B, N, k) include a padded point."""
    if can_check_values(neighbor_index):
        real = mask.gather(1, neighbor_index.flatten(1)).view_as(neighbor_index)
        wrong = mask & ~real.all(-1)
        if bool(wrong.any()):
            raise ValueError(
                f"`neighbor_index` names padded points (first in row {int(wrong.any(-1).nonzero()[0])}): compute it "
                "before padding, a point's own index standing for a missing neighbour."
            )


def check_classes(name: str, labels: Tensor, count: int, remedy: str = "") -> None:
    """Raise a ValueError unless labels are whole numbers below `count`, or missing; looks at values on any device."""
    wrong = (labels < 0) | (labels >= count)
    if labels.is_floating_point():
        wrong |= labels != labels.round()
    _refuse_labels(name, labels, wrong, f"-100 (missing) or from 0 to {count - 1}", remedy)


def check_shares(name: str, labels: Tensor, remedy: str = "") -> None:
    """Raise a ValueError unless labels lie in [0, 1], or are missing; looks at values on any device."""
    _refuse_labels(name, labels, (labels < 0) | (labels > 1), "-100 or NaN (missing) or from 0 to 1", remedy)


def is_present(labels: Tensor) -> Tensor:
    """Where labels are neither -100 nor NaN."""
    return (labels != IGNORED_LABEL) & ~labels.isnan()


def _refuse_labels(name: str, labels: Tensor, wrong: Tensor, rule: str, remedy: str) -> None:
    wrong = wrong & is_present(labels)
    if bool(wrong.any()):
        found, row = labels[wrong][0].item(), int(wrong.nonzero()[0, 0])
        raise ValueError(f"`{name}` must be {rule}: got {found} (first in row {row}). {remedy}".rstrip())


def resolve_mask(attention_mask: Tensor | None, reference: Tensor) -> Tensor:
    """The attention mask as bool `(B, N)`; all tokens of `reference` (B, N, ...) without one.

    Raises:
        ValueError: wrong shape, values other than 0 and 1, or a row without a real token.
    """
    batch, length = reference.shape[:2]
    if attention_mask is None:
        if batch == 0 or length == 0:
            raise ValueError(f"The input has shape {tuple(reference.shape)}: give at least one row and one token.")
        return torch.ones(batch, length, dtype=torch.bool, device=reference.device)
    check_shape("attention_mask", attention_mask, (batch, length), "one entry per token, 1 for real ones")
    if can_check_values(attention_mask):
        if not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
            raise ValueError("`attention_mask` must hold 1 for real tokens and 0 for padding, nothing else.")
        empty = ~(attention_mask != 0).any(-1)
        if bool(empty.any()):
            raise ValueError(
                f"`attention_mask` leaves row {int(empty.nonzero()[0])} without a real token: remove empty samples."
            )
    return attention_mask != 0
