"""What each setting of a grid does, averaged over the others: more runs behind each number than behind a variant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .differences import Difference, reference_of, values_by_seed
from .inference import inference_label

INFERENCE = "inference"


@dataclass(frozen=True)
class Average:
    """A value of one setting, averaged over all values of the others.

    Args:
        setting, value (`str`): Such as `model.sampling_noise` and `0.25`, or `inference` and `topk`.
        is_reference (`bool`): Whether it is the reference's value.
        by_seed (`dict`): Seed -> the mean of the metric over the evaluations with this value.
        difference (`Difference`): What it gains over the reference's value.
    """

    setting: str
    value: str
    is_reference: bool
    by_seed: dict[Any, float]
    difference: Difference


def grid_averages(comparison: Mapping[str, Any]) -> list[Average]:
    """Average a comparison over all but one of its settings, for each of them.

    Args:
        comparison (`Mapping`): A comparison, as [`ablate`] returned it. Of settings of inference the first one is the
            reference's.

    Returns:
        `list[Average]`: In the order of the grid; empty unless the comparison holds all products of several settings
        with several values, and every evaluation of every seed.
    """
    cells = [
        (_settings_of(variant) | {INFERENCE: inference_label(entry["settings"])}, values_by_seed(variant, entry))
        for variant in comparison["variants"].values()
        for entry in variant["inference"]
    ]
    reference = reference_of(comparison)
    if reference is None or len({tuple(settings) for settings, _ in cells}) > 1:
        return []
    values = {name: list(dict.fromkeys(settings[name] for settings, _ in cells)) for name in cells[0][0]}
    varied = [name for name in values if len(values[name]) > 1]
    seeds = set(cells[0][1])
    is_whole = len(cells) == math.prod(map(len, values.values())) and seeds and all(set(c) == seeds for _, c in cells)
    if not is_whole or len([name for name in varied if name != INFERENCE]) < 2:
        return []
    of_reference = _settings_of(reference) | {INFERENCE: inference_label(reference["inference"][0]["settings"])}
    averages = []
    for name in varied:
        means = {value: _mean([c for settings, c in cells if settings[name] == value]) for value in values[name]}
        base = means[of_reference[name]]
        averages += [
            Average(name, value, value == of_reference[name], mean, Difference.of([mean[s] - base[s] for s in mean]))
            for value, mean in means.items()
        ]
    return averages


def _settings_of(variant: Mapping[str, Any]) -> dict[str, str]:
    pairs = (override.partition("=") for override in variant["overrides"])
    return {name.strip(): value.strip() for name, _, value in pairs}


def _mean(cells: list[dict[Any, float]]) -> dict[Any, float]:
    return {seed: sum(cell[seed] for cell in cells) / len(cells) for seed in cells[0]}
