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
_FLOOR_NAMES = {
    "fingerprints": "fingerprints",
    "hashed_counts": "hashed counts",
    "shape_histograms": "shape histograms",
    "value_trees": "trees on values",
}


class ComparisonSection(CardSection):
    """The section with all runs of the released recipe and the results that they are compared with."""

    file_name = COMPARISON_NAME
    fields = ("metric", "is_plain", "runs", "floor", "published", "released")
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

    def opening(self, content: Mapping[str, Any]) -> str:
        """Say if the model is below its floor."""
        floor = floor_of(content)
        if floor is None or passes_floor(content, floor):
            return ""
        unit = content["metric"].replace("_", " ") + ("" if content["is_plain"] else " in %")
        return (
            f"**It is below its floor**: {_FLOOR_NAMES[floor['baseline']]}, a classical method without a network, "
            f"fitted in {max(floor['training_cpu_minutes'])} CPU minutes, comes to {_spread(floor, content)} on the "
            f"same test data, this recipe to {_spread(content['runs'][0], content)} ({unit})."
        )

    def num_runs(self, content: Mapping[str, Any]) -> int:
        return len(content["runs"][0]["values"])


def floor_of(comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The runs of the classical method that a model is to pass; `None` if there are none."""
    return next((run for run in comparison["runs"][1:] if run["recipe"] == comparison["floor"]), None)


def passes_floor(comparison: Mapping[str, Any], floor: Mapping[str, Any]) -> bool:
    """Whether the mean of the runs of a model is better than that of its floor."""
    own, found = comparison["runs"][0]["mean"], floor["mean"]
    return bool(own > found if comparison["greater_is_better"] else own < found)


def _name_of(run: Mapping[str, Any]) -> str:
    baseline = run["baseline"]
    return f"floor: {_FLOOR_NAMES[baseline]}" if baseline in _FLOOR_NAMES else _MODEL_NAMES.get(baseline, baseline)


def _spread(run: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Mean and deviation of runs, fractions in percent."""
    plain = comparison["is_plain"]
    return format_metric(run["mean"], plain) + ("" if run["std"] is None else f" ± {format_metric(run['std'], plain)}")


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
            f"{_name_of(run)} (`{run['recipe']}`)",
            ", ".join(format_metric(value, plain) for value in run["values"]),
            _spread(run, comparison),
            "-" if run["num_parameters"] is None else f"{run['num_parameters']:,}",
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
