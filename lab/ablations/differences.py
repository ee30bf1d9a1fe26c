"""Variants of an ablation against its reference, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeling_sft.hub.optional import import_optional

from .inference import inference_label


@dataclass(frozen=True)
class Difference:
    """What a variant gains over the reference, in units of the metric.

    Args:
        values: one per seed that both have.
        mean: their mean.
        half_width: half of the 95 % confidence interval of the mean after Student's t; None for a single seed.
    """

    values: tuple[float, ...]
    mean: float
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Difference:
        """Summarise the differences of one or more seeds."""
        array = np.array(values)
        half_width = None
        if array.size > 1:
            quantile = import_optional("scipy.stats", "train").t.ppf(0.975, array.size - 1)
            half_width = float(quantile * array.std(ddof=1) / math.sqrt(array.size))
        return cls(tuple(array.tolist()), float(array.mean()), half_width)

    @property
    def is_tie(self) -> bool:
        """Whether 0 lies in the interval."""
        return self.half_width is not None and abs(self.mean) <= self.half_width


def ordered_variants(comparison: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Labels and variants of a comparison, the reference first."""
    return sorted(comparison["variants"].items(), key=lambda item: not item[1]["is_reference"])


def reference_of(comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The variant that the others are compared with; None if it is not finished yet."""
    variant = ordered_variants(comparison)[0][1]
    return variant if variant["is_reference"] else None


def difference_of(
    variant: Mapping[str, Any], entry: Mapping[str, Any], reference: Mapping[str, Any] | None
) -> Difference | None:
    """Compare a variant with the reference under one setting of inference.

    Args:
        variant: the variant, as [`ablate`] returned it.
        entry: one of its settings of inference.
        reference: the reference.

    Returns:
        `Difference` or `None`: None if the two have no seed in common.
    """
    setting = inference_label(entry["settings"])
    base: dict[Any, float] = {}
    if reference is not None:
        others = (other for other in reference["inference"] if inference_label(other["settings"]) == setting)
        base = next((values_by_seed(reference, other) for other in others), {})
    own = values_by_seed(variant, entry)
    differences = [own[seed] - base[seed] for seed in own if seed in base]
    return Difference.of(differences) if differences else None


def values_by_seed(variant: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[Any, float]:
    """Seed -> value; empty while some finished run still lacks this setting of inference."""
    seeds, values = variant["seeds"], entry["values"]
    return dict(zip(seeds, values, strict=True)) if len(seeds) == len(values) else {}
