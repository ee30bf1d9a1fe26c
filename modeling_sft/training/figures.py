"""Figures of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hub.optional import import_optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_training_curves(log_history: Sequence[dict[str, Any]], metric: str, path: str | Path) -> None:
    """Draw the losses and the validation metric over the epochs.

    Args:
        log_history: Trainer's log: entries with `epoch` and `loss`, `eval_loss`, `eval_<metric>`.
        metric: name of the validation metric.
        path: image file to write.
    """
    figure = import_optional("matplotlib.figure", "train").Figure(figsize=(10, 4), layout="constrained")
    loss_axes, metric_axes = figure.subplots(1, 2)
    for key, label in (("loss", "training"), ("eval_loss", "validation")):
        _plot_logged(loss_axes, log_history, key, label)
    _plot_logged(metric_axes, log_history, f"eval_{metric}", "validation")
    for axes, title in ((loss_axes, "loss"), (metric_axes, metric.replace("_", " "))):
        axes.set_xlabel("epoch")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=120)


def _plot_logged(axes: Axes, log_history: Sequence[dict[str, Any]], key: str, label: str) -> None:
    entries = [(entry["epoch"], entry[key]) for entry in log_history if key in entry and "epoch" in entry]
    if entries:
        epochs, values = zip(*entries, strict=True)
        axes.plot(epochs, values, marker=".", label=label)
