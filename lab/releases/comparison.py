"""Tables that put a model beside its other seeds, anchors trained by the same script, and published results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeling_sft.publishing.sections import CardSection
from modeling_sft.training.evaluation import format_metric

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


class ComparisonSection(CardSection):
    """The section with all runs of the released recipe and the results that they are compared with."""

    file_name = COMPARISON_NAME
    fields = ("metric", "is_plain", "runs", "published", "released")
    script = "scripts/release.py"
    has_results = True

    def render(self, content: Mapping[str, Any], folder: Path) -> str:
        released = ", ".join(f"{name} {value}" for name, value in content["released"].items())
        median = ", the median" if self.num_runs(content) > 1 else ""
        return (
            "### Results of all runs, of other models, and of others\n\n"
            f"{comparison_tables(content)}\n\n"
            f"This repository holds the run with {released}{median}. "
            "Other models with a recipe were trained by the same script."
        )

    def num_runs(self, content: Mapping[str, Any]) -> int:
        return len(content["runs"][0]["values"])


def comparison_tables(comparison: Mapping[str, Any]) -> str:
    """The runs and the other results as two Markdown tables with fractions in percent, and the note below them."""
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
