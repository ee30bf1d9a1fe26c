"""Log-log figures of time and memory over length, with the slopes of fitted lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modeling_sft.hub.optional import import_optional

from .cases import BenchmarkSuite
from .report import grouped, label_of, models_of
from .results import ResultRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTITIES = {"seconds_median": "seconds per pass", "peak_mib": "peak MiB per pass"}
MARKERS = "osv^D<>PX*hdp"


def fitted_slope(lengths: Sequence[float], values: Sequence[float]) -> float | None:
    """Exponent p of the least-squares fit value = c * length^p; `None` below two lengths."""
    if len(set(lengths)) < 2:
        return None
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def plot_results(rows: Sequence[ResultRow], suite: BenchmarkSuite, path: Path) -> None:
    """Draw one row of panels for each group of comparable results: time on the left, memory on the right.

    Args:
        rows: results of one suite.
        suite: gives labels.
        path: image file to write.
    """
    groups = grouped(rows)
    figure = import_optional("matplotlib.figure", "benchmark").Figure(
        figsize=(13, 4.8 * len(groups)), layout="constrained"
    )
    panels = figure.subplots(len(groups), len(QUANTITIES), squeeze=False)
    for group, row_of_panels in zip(groups, panels, strict=True):
        for axes, (quantity, title) in zip(row_of_panels, QUANTITIES.items(), strict=True):
            _draw(axes, group, suite, quantity)
            first = group[0]
            axes.set_title(f"{first.suite}: {first.mode}, {first.dtype}, {first.device}", fontsize=10)
            axes.set_ylabel(title)
    figure.savefig(path, dpi=120)


def _draw(axes: Axes, rows: Sequence[ResultRow], suite: BenchmarkSuite, quantity: str) -> None:
    lengths_shown = sorted({row.length for row in rows})
    for model in models_of(rows, suite):
        points = sorted(
            (row.length, getattr(row, quantity)) for row in rows if row.model == model and getattr(row, quantity)
        )
        if not points:
            continue
        lengths, values = zip(*points, strict=True)
        slope = fitted_slope(lengths, values)
        # A case keeps its style, whichever other cases are shown.
        position = list(suite.cases).index(model) if model in suite.cases else len(suite.cases)
        is_sft = model in suite.cases and suite.cases[model].is_sft
        axes.plot(
            lengths,
            values,
            color=f"C{position % 10}",
            marker=MARKERS[position % len(MARKERS)],
            linestyle="-" if is_sft else "--",
            linewidth=2.2 if is_sft else 1.2,
            label=label_of(suite, model) + ("" if slope is None else f", $N^{{{slope:.2f}}}$"),
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths_shown, labels=[f"{length:,}" for length in lengths_shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(suite.unit)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
