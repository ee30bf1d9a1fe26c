"""Figures of an ablation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_sft.hub.optional import import_optional
from modeling_sft.training.tasks import get_task

from .differences import difference_of, ordered_variants, reference_of
from .inference import ALL_TOKENS, inference_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind readers can tell apart, without yellow.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_COLUMNS = 2


def plot_ablation(results: Mapping[str, Any], path: str | Path) -> None:
    """Draw one panel per comparison.

    Each variant has a row with its differences from the reference, which is the dashed line: a faint dot per seed, a
    mark at the mean, and a bar for the 95 % confidence interval. Marks and colours tell settings of inference apart.
    If the settings are several K, each variant is a curve over a logarithmic K axis instead. The curves, and panels
    without a reference, show the values themselves, with bars of one standard deviation to either side.

    Args:
        results: what [`ablate`] returned.
        path: image file to write.
    """
    comparisons = list(results["comparisons"].values())
    # An unfinished study may have comparisons with one variant only: they are left out, unless there are no others.
    comparisons = [each for each in comparisons if len(each["variants"]) > 1] or comparisons
    columns = min(_COLUMNS, len(comparisons))
    groups = [comparisons[start : start + columns] for start in range(0, len(comparisons), columns)]
    heights = [max(_height(comparison) for comparison in group) for group in groups]
    figure = import_optional("matplotlib.figure", "train").Figure(
        figsize=(7.0 * columns, sum(heights)), layout="constrained"
    )
    panels = figure.subplots(len(groups), columns, squeeze=False, height_ratios=heights)
    is_plain = results["metric"] in get_task(results["task"]).plain_metrics
    metric, unit = f"validation {results['metric'].replace('_', ' ')}", "" if is_plain else " (%)"
    for axes in panels.flat[len(comparisons) :]:
        axes.set_axis_off()
    for axes, comparison in zip(panels.flat, comparisons):
        axes.set_title(comparison["title"])
        axes.grid(alpha=0.3)
        if _is_curve(comparison):
            _plot_curves(axes, comparison, 1 if is_plain else 100)
            axes.set_ylabel(metric + unit)
        else:
            _plot_rows(axes, comparison, 1 if is_plain else 100)
            is_gain = reference_of(comparison) is not None
            axes.set_xlabel(f"gain in {metric}" + ("" if is_plain else " (points)") if is_gain else metric + unit)
    figure.suptitle(f"{results['study']}: {results['dataset']}, seeds {', '.join(map(str, results['seeds']))}")
    figure.savefig(path, dpi=120)


def _settings(comparison: Mapping[str, Any]) -> list[str]:
    entries = (entry for variant in comparison["variants"].values() for entry in variant["inference"])
    return list(dict.fromkeys(inference_label(entry["settings"]) for entry in entries))


def _is_curve(comparison: Mapping[str, Any]) -> bool:
    """Whether the settings of inference differ in K only."""
    entries = [entry for variant in comparison["variants"].values() for entry in variant["inference"]]
    return len(_settings(comparison)) > 1 and all(list(e["settings"]) == ["num_sampled_tokens"] for e in entries)


def _height(comparison: Mapping[str, Any]) -> float:
    rows = len(comparison["variants"]) * (0.6 + 0.4 * len(_settings(comparison)))
    return 4.2 if _is_curve(comparison) else 1.6 + 0.26 * rows


def _plot_rows(axes: Axes, comparison: Mapping[str, Any], factor: float) -> None:
    settings = _settings(comparison)
    reference = reference_of(comparison)
    variants = ordered_variants(comparison)
    if reference is not None:
        axes.axvline(0.0, color="black", linestyle="--", linewidth=1)
    for row, (_, variant) in enumerate(variants):
        for entry in [] if variant["is_reference"] else variant["inference"]:
            values, mean, width = entry["values"], entry["mean"], entry["std"]
            if reference is not None:
                difference = difference_of(variant, entry, reference)
                if difference is None:
                    continue
                values, mean, width = difference.values, difference.mean, difference.half_width
            number = settings.index(inference_label(entry["settings"]))
            color, marker = _style(number)
            height = row + 0.6 * ((number + 0.5) / len(settings) - 0.5)
            points, bar = [factor * value for value in values], factor * (width or 0.0)
            axes.plot(points, [height] * len(points), ".", color=color, alpha=0.45, markersize=7, markeredgewidth=0)
            axes.errorbar(factor * mean, height, xerr=bar, fmt=marker, color=color, capsize=3, markersize=6)
    axes.set_yticks(range(len(variants)), [_name(label, variant) for label, variant in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    if len(settings) > 1:
        for number, setting in enumerate(settings):
            color, marker = _style(number)
            axes.plot([], [], marker, color=color, label=setting)
        axes.legend(title="inference", fontsize="small")


def _plot_curves(axes: Axes, comparison: Mapping[str, Any], factor: float) -> None:
    entries = [entry for variant in comparison["variants"].values() for entry in variant["inference"]]
    choices = {entry["settings"]["num_sampled_tokens"] for entry in entries}
    numbers = sorted(choices - {ALL_TOKENS})
    positions: dict[Any, float] = {k: math.log2(k) for k in numbers}
    if ALL_TOKENS in choices:
        # "All tokens" is a different number in each row, so it gets the place one step behind the largest K.
        positions[ALL_TOKENS] = positions[numbers[-1]] + 1 if numbers else 0.0
    for number, (label, variant) in enumerate(ordered_variants(comparison)):
        color, marker = _style(number)
        points = sorted(variant["inference"], key=lambda entry: positions[entry["settings"]["num_sampled_tokens"]])
        places = [positions[entry["settings"]["num_sampled_tokens"]] for entry in points]
        means = [factor * entry["mean"] for entry in points]
        deviations = [factor * (entry["std"] or 0.0) for entry in points]
        axes.errorbar(
            places, means, yerr=deviations, color=color, marker=marker, capsize=3, label=_name(label, variant)
        )
        for place, entry in zip(places, points, strict=True):
            values = [factor * value for value in entry["values"]]
            axes.plot([place] * len(values), values, ".", color=color, alpha=0.45, markeredgewidth=0)
    axes.set_xticks(list(positions.values()), [str(k) for k in positions])
    axes.set_xlabel("K at inference (logarithmic)")
    axes.legend(fontsize="small")


def _style(number: int) -> tuple[str, str]:
    return _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)]


def _name(label: str, variant: Mapping[str, Any]) -> str:
    return f"{label} (reference)" if variant["is_reference"] else label
