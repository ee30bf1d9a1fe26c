"""A model beside its other seeds, anchors trained by the same script, and published results, as tables."""

from collections.abc import Mapping
from typing import Any

from ..training.repetition import format_metric

COMPARISON_NAME = "comparison.json"
_MODEL_NAMES = {
    None: "SFT",
    "bert": "BERT",
    "dgcnn": "DGCNN",
    "gine": "GINE",
    "gps": "GPS",
    "nystromformer": "Nystromformer",
    "pointnet": "PointNet",
}


def comparison_tables(comparison: Mapping[str, Any]) -> str:
    """The runs and other figures as two Markdown tables, fractions in percent, and the note below them."""
    plain = comparison["is_plain"]
    metric = comparison["metric"].replace("_", " ") + ("" if plain else " (%)")
    lines = [
        f"| model | {metric} of each run | mean ± deviation | parameters | CPU minutes of each run |",
        "|---|---|---|---|---|",
    ]
    for run in comparison["runs"]:
        minutes = ["-" if value is None else f"{value:.1f}" for value in run["training_cpu_minutes"]]
        cells = (
            f"{_MODEL_NAMES.get(run['baseline'], run['baseline'])} (`{run['recipe']}`)",
            ", ".join(format_metric(value, plain) for value in run["values"]),
            f"{format_metric(run['mean'], plain)}"
            + ("" if run["std"] is None else f" ± {format_metric(run['std'], plain)}"),
            f"{run['num_parameters']:,}",
            ", ".join(minutes),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if comparison["published"]:
        lines += ["", f"| other figures | {metric} | source | remark |", "|---|---|---|---|"]
        for entry in comparison["published"]:
            value = format_metric(entry["value"], plain)
            lines.append(f"| {entry['model']} | {value} | {entry['source']} | {entry.get('remark', '')} |")
    if comparison.get("note"):
        lines += ["", comparison["note"]]
    return "\n".join(lines)
