"""Pictures of what a model samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modeling_sft.hub.optional import import_optional


def plot_sampled_tokens(
    points: np.ndarray, sampled_tokens: Sequence[np.ndarray], path: str | Path, title: str | None = None
) -> None:
    """Draw one cloud per layer, with the points that the layer sampled in colour.

    Args:
        points: (N, 3) coordinates; they are drawn in the plane if all third coordinates are equal.
        sampled_tokens: for each layer the indices of the sampled points, in any shape; indices outside 0 .. N-1
            (unused slots and extra tokens) are left out.
        path: image file to write.
        title: text above the panels.
    """
    num_layers = len(sampled_tokens)
    figure = import_optional("matplotlib.figure", "train").Figure(
        figsize=(3.2 * num_layers, 3.8), layout="constrained"
    )
    is_flat = bool(np.ptp(points[:, 2]) == 0)
    coordinates = points[:, :2].T if is_flat else points.T
    panels = figure.subplots(1, num_layers, squeeze=False, subplot_kw={} if is_flat else {"projection": "3d"})[0]
    for layer, (axes, sampled) in enumerate(zip(panels, sampled_tokens, strict=True), start=1):
        indices = np.unique(sampled)
        chosen = np.isin(np.arange(len(points)), indices)
        axes.scatter(*coordinates[:, ~chosen], s=45, c="#c8ccd2", label="not sampled")
        axes.scatter(*coordinates[:, chosen], s=75, c="#d1495b", edgecolors="black", linewidths=0.6, label="sampled")
        axes.set_title(f"layer {layer}: {chosen.sum()} of {len(points)}")
        axes.set_aspect("equal")
        axes.margins(0.12)
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)
