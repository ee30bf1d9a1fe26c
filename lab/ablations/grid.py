"""What each setting of a grid does, averaged over the others: more runs behind each number than behind a variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeling_sft.hub.optional import import_optional

from .differences import Difference, reference_of, values_by_seed
from .inference import inference_label

INFERENCE = "inference"


@dataclass(frozen=True)
class Average:
    """A value of one setting, averaged over all values of the others.

    Args:
        setting, value: such as `model.sampling_noise` and `0.25`, or `inference` and `topk`.
        is_reference: whether it is the reference's value.
        by_seed: seed -> the mean of the metric over the evaluations with this value.
        difference: what it gains over the reference's value.
    """

    setting: str
    value: str
    is_reference: bool
    by_seed: dict[Any, float]
    difference: Difference


def grid_averages(comparison: Mapping[str, Any]) -> list[Average]:
    """Average a comparison over all but one of its settings, for each of them.

    Args:
        comparison: a comparison, as [`ablate`] returned it. Of settings of inference the first one is the reference's.

    Returns:
        `list[Average]`: In the order of the grid. The list is empty unless the comparison has several settings with
        several values each, contains all products of these values, and has every evaluation of every seed.
    """
    cells = [
        (_settings_of(variant) | {INFERENCE: inference_label(entry["settings"])}, values_by_seed(variant, entry))
        for variant in comparison["variants"].values()
        for entry in variant["inference"]
    ]
    pandas = import_optional("pandas", "train")
    # Each evaluation is a row; it has NaN where it lacks a setting or a seed.
    settings, values = pandas.DataFrame([each for each, _ in cells]), pandas.DataFrame([each for _, each in cells])
    numbers, reference = settings.nunique(), reference_of(comparison)
    is_full = all(table.size > 0 and table.notna().to_numpy().all() for table in (settings, values))
    is_whole = is_full and len(cells) == numbers.prod()
    if reference is None or not is_whole or (numbers.drop(INFERENCE) > 1).sum() < 2:
        return []
    of_reference = _settings_of(reference) | {INFERENCE: inference_label(reference["inference"][0]["settings"])}
    averages = []
    for name in numbers.index[numbers > 1]:
        means = values.groupby(settings[name], sort=False).mean()
        base = of_reference[name]
        averages += [
            Average(name, value, value == base, mean.to_dict(), Difference.of(mean - means.loc[base]))
            for value, mean in means.iterrows()
        ]
    return averages


def _settings_of(variant: Mapping[str, Any]) -> dict[str, str]:
    pairs = (override.partition("=") for override in variant["overrides"])
    return {name.strip(): value.strip() for name, _, value in pairs}
