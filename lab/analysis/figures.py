"""Figures of an analysis, in the colours of Okabe and Ito, which most colour-blind readers can tell apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modeling_sft.hub.optional import import_optional
from modeling_sft.training.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE = "#0072B2", "#D55E00"
NUM_COLUMNS = 4
MOST_NAMED_CLASSES = 20


def plot_analysis(report: dict[str, Any], task: Task, path: Path) -> None:
    """Draw the metric against K, a curve per corruption and the reliability diagram, as far as the report has them.

    Args:
        report: what [`analyze`] returns.
        task: says which metric is the main one, and its unit.
        path: image file to write.
    """
    panels: list[Callable[[Axes], None]] = []
    if "sampled_tokens" in report:
        panels.append(lambda axes: _draw_sampled_tokens(axes, report["sampled_tokens"], task))
    for name, entries in report.get("robustness", {}).items():
        panels.append(partial(_draw_corruption, name=name, entries=entries, task=task))
    if "calibration" in report:
        panels.append(lambda axes: _draw_reliability(axes, report["calibration"]))
    if panels:
        _draw_panels(panels, path, size=3.6)


def plot_failures(failures: dict[str, Any], rows: Sequence[Any], path: Path) -> None:
    """Draw the wrong examples if they are clouds or images, otherwise the confusion matrix or a bar per label.

    Args:
        failures: what [`find_failures`] returns.
        rows: the rows of its "examples".
        path: image file to write.
    """
    if "labels" in failures:
        _draw_panels([lambda axes: _draw_labels(axes, failures["labels"])], path, size=6)
        return
    draw = None if not rows else _draw_cloud if "points" in rows[0] else _draw_image if _is_image(rows[0]) else None
    if draw is None:
        _draw_panels([lambda axes: _draw_confusions(axes, failures)], path, size=6)
        return
    panels = [
        partial(_draw_example, row=row, example=example, draw=draw)
        for row, example in zip(rows, failures["examples"], strict=True)
    ]
    _draw_panels(panels, path, size=2.6)


def _draw_panels(panels: Sequence[Callable[..., None]], path: Path, size: float) -> None:
    columns = min(NUM_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = import_optional("matplotlib.figure", "train").Figure(
        figsize=(size * columns, size * lines), layout="constrained"
    )
    every_axes = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    for axes, draw in zip(every_axes, panels, strict=False):
        draw(axes)
    for axes in every_axes[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=120)


def _draw_sampled_tokens(axes: Axes, entries: Sequence[dict[str, Any]], task: Task) -> None:
    values = _main_values(entries, task)
    axes.plot([entry["num_sampled_tokens"] for entry in entries], values, color=BLUE, marker="o")
    for entry, value in zip(entries, values, strict=True):
        if entry["is_trained"]:
            axes.plot(entry["num_sampled_tokens"], value, color=ORANGE, marker="D", linestyle="", label="trained K")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("K, sampled tokens per layer")
    axes.set_ylabel(_main_title(task))
    axes.set_title("sampled tokens", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_corruption(axes: Axes, name: str, entries: Sequence[dict[str, Any]], task: Task) -> None:
    axes.plot([entry["setting"] for entry in entries], _main_values(entries, task), color=BLUE, marker="o")
    axes.set_ylabel(_main_title(task))
    axes.set_title(name.replace("_", " "), fontsize=10)
    axes.tick_params(axis="x", labelrotation=30 if len(entries) > 4 else 0)
    axes.grid(alpha=0.3)


def _draw_reliability(axes: Axes, calibration: dict[str, Any]) -> None:
    bins = [each for each in calibration["bins"] if each["count"]]
    left, width = [each["lower"] for each in bins], [each["upper"] - each["lower"] for each in bins]
    axes.bar(left, [each["accuracy"] for each in bins], width, align="edge", color=BLUE, edgecolor="white")
    axes.plot([0, 1], [0, 1], color=ORANGE, linestyle="--", label="perfect calibration")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_title(f"expected calibration error {calibration['expected_calibration_error']:.4f}", fontsize=10)
    axes.legend(loc="upper left")


def _draw_labels(axes: Axes, labels: Sequence[dict[str, Any]]) -> None:
    places = np.arange(len(labels))
    for offset, name, color in ((-0.2, "average_precision", BLUE), (0.2, "roc_auc", ORANGE)):
        axes.barh(places + offset, [label[name] or 0.0 for label in labels], 0.4, color=color, label=_words(name))
    axes.set_yticks(places, [label["name"] for label in labels])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend()


def _draw_confusions(axes: Axes, failures: dict[str, Any]) -> None:
    matrix, names = np.array(failures["confusion_matrix"]), failures["classes"]
    axes.imshow(matrix / matrix.sum(axis=1, keepdims=True).clip(min=1), cmap="cividis", vmin=0, vmax=1)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title("share of the true class", fontsize=10)
    if len(names) <= MOST_NAMED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)


def _draw_example(axes: Axes, row: Any, example: dict[str, Any], draw: Callable[[Axes, Any], None]) -> None:
    draw(axes, row)
    axes.set_title(
        f"{example['true']}, predicted {example['predicted']}\n{example['confidence']:.2f}, number {example['index']}",
        fontsize=8,
    )
    axes.set_axis_off()


def _draw_cloud(axes: Axes, row: Any) -> None:
    points = np.asarray(row["points"], dtype=np.float64)
    if np.ptp(points[:, 2]) == 0:
        across, up = points[:, 0], points[:, 1]
    else:
        # The view is from the side and a little from above, with z upwards.
        turn, tilt = np.radians(30), np.radians(20)
        across = points[:, 0] * np.cos(turn) + points[:, 1] * np.sin(turn)
        depth = points[:, 1] * np.cos(turn) - points[:, 0] * np.sin(turn)
        up = points[:, 2] * np.cos(tilt) + depth * np.sin(tilt)
    axes.scatter(across, up, s=max(2.0, min(60.0, 1500 / len(points))), color=BLUE, linewidths=0)
    axes.set_aspect("equal")
    axes.margins(0.1)


def _draw_image(axes: Axes, row: Any) -> None:
    values = np.asarray(row["values"], dtype=np.float64)
    side = math.isqrt(len(values))
    axes.imshow(values.reshape(side, side), cmap="gray")


def _is_image(row: Any) -> bool:
    shape = np.shape(row.get("values", ()))
    return len(shape) == 2 and shape[1] == 1 and math.isqrt(shape[0]) ** 2 == shape[0]


def _main_values(entries: Sequence[dict[str, Any]], task: Task) -> list[float]:
    scale = 1 if task.main_metric in task.plain_metrics else 100
    return [math.nan if entry[task.main_metric] is None else scale * entry[task.main_metric] for entry in entries]


def _main_title(task: Task) -> str:
    return _words(task.main_metric) + ("" if task.main_metric in task.plain_metrics else " (%)")


def _words(name: str) -> str:
    return name.replace("_", " ")
