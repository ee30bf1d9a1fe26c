"""Figures of a training run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..hub.optional import import_optional


def plot_training_curves(log_history: Sequence[dict[str, Any]], metric: str, path: str | Path) -> None:
    """Draw the losses and the validation metric over the epochs.

    Args:
        log_history: Trainer's log: entries with `epoch` and `loss`, `eval_loss`, `eval_<metric>`.
        metric: name of the validation metric.
        path: image file to write.
    """
    figure = import_optional("matplotlib.figure", "train").Figure(figsize=(10, 4), layout="constrained")
    loss_axes, metric_axes = figure.subplots(1, 2)
    curves = (
        (loss_axes, "loss", "training"),
        (loss_axes, "eval_loss", "validation"),
        (metric_axes, f"eval_{metric}", "validation"),
    )
    for axes, key, label in curves:
        entries = [entry for entry in log_history if key in entry and "epoch" in entry]
        if entries:
            epochs, values = [entry["epoch"] for entry in entries], [entry[key] for entry in entries]
            axes.plot(epochs, values, marker=".", label=label)
    for axes, title in ((loss_axes, "loss"), (metric_axes, metric.replace("_", " "))):
        axes.set_xlabel("epoch")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=120)
