"""The same recipe for several seeds, folds or other values of one setting: every result, mean and deviation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .environment import describe_environment
from .evaluation import EVALUATION_NAME, NO_METRICS, evaluate, spread_of
from .recipe_files import recipe_name
from .run import LOG_NAME, train
from .tasks import get_task, load_recipe
from .writing import replace_text

SUMMARY_NAME = "summary.json"


def repeat(
    path: str | Path,
    setting: str,
    values: Sequence[Any],
    output_dir: str | Path,
    data_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
) -> dict[str, Any]:
    """Train a recipe once for each value of a setting, evaluate each model on the test split, and summarise.

    The run of a value is written to `output_dir/SETTING=VALUE`, the summary to `output_dir/summary.json`.

    Args:
        path: recipe file.
        setting: dotted name of what differs, such as `"seed"` or `"dataset.fold"`.
        values: its values, no two equal.
        output_dir: folder to write; must be absent or empty unless `resume`.
        data_dir: where the data sets lie.
        overrides: further dotted assignments, for all runs.
        resume: keep the runs that are finished, and continue one that was interrupted.

    Returns:
        `dict`: `metrics` maps each metric of the task, as-is, to its `values` in order, their `mean`, and their
        standard deviation `std` (divisor n - 1; None for one value); `rotated` holds the same under each rotation
        that the task knows; beside it the settings, the processor time and parameters of each run, date, command,
        versions and hardware.

    Raises:
        ValueError: if values repeat, the folder is in use, or the recipe does not fit the data.
    """
    output_dir = Path(output_dir)
    if not values or len({str(value) for value in values}) < len(values):
        raise ValueError(f"`values` must be one or more different values of {setting}, got {list(values)}.")
    # Reading all of them first finds mistakes before hours of training.
    recipes = {value: load_recipe(path, [*overrides, f"{setting}={value}"]) for value in values}
    if not resume and output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"`output_dir` {output_dir} is not empty: pass --resume or another folder.")
    reports, logs = [], []
    for value, recipe in recipes.items():
        folder = output_dir / run_folder(setting, value)
        logs.append(train(recipe, folder, data_dir, resume=resume))
        reports.append(_evaluated(folder, data_dir))
    # Under the rotations that all runs were evaluated under, by whatever command.
    rotations = [name for name in reports[0]["results"] if all(name in report["results"] for report in reports)]
    rotated = {rotation: _metrics_of(reports, rotation) for rotation in rotations}
    summary = {
        "recipe": recipe_name(path),
        "baseline": recipes[values[0]].baseline,
        "task": reports[0]["task"],
        "dataset": reports[0]["dataset"],
        "setting": setting,
        "values": list(values),
        "main_metric": get_task(reports[0]["task"]).main_metric,
        "metrics": rotated.pop("none"),
        "rotated": rotated,
        "validation": [log["validation"] for log in logs],
        "num_parameters": [log["num_parameters"] for log in logs],
        "training_cpu_seconds": [log["training_cpu_seconds"] for log in logs],
        # What validation chose, of baselines that are fitted.
        **({"choices": [log["choice"] for log in logs]} if "choice" in logs[0] else {}),
        **describe_environment(),
    }
    replace_text(output_dir / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    return summary


def run_folder(setting: str, value: Any) -> str:
    """Name of the folder of the run with a value of the setting."""
    return f"{setting}={value}"


def format_summary(summary: dict[str, Any]) -> str:
    """Lay out the result of [`repeat`]: one line per metric with all values, fractions in percent."""
    plain = get_task(summary["task"]).plain_metrics
    lines = [f"{summary['dataset']}, test split, {summary['setting']} = {', '.join(map(str, summary['values']))}"]
    for name, spread in summary["metrics"].items():
        factor, unit, digits = (1, "", 4) if name in plain else (100, " %", 2)
        deviation = "" if spread["std"] is None else f" +- {factor * spread['std']:.{digits}f}"
        values = ", ".join(f"{factor * value:.{digits}f}" for value in spread["values"])
        lines.append(f"{name.replace('_', ' ')}{unit}: {factor * spread['mean']:.{digits}f}{deviation} ({values})")
    return "\n".join(lines)


def _evaluated(folder: Path, data_dir: str | Path | None) -> dict[str, Any]:
    path = folder / EVALUATION_NAME
    # The test split is read once: a finished evaluation is kept.
    if path.is_file() and path.stat().st_mtime >= (folder / LOG_NAME).stat().st_mtime:
        return json.loads(path.read_text(encoding="utf-8"))
    return evaluate(folder, data_dir, output=path)


def _metrics_of(reports: Sequence[dict[str, Any]], rotation: str) -> dict[str, Any]:
    results = [report["results"][rotation] for report in reports]
    names = [name for name in results[0] if name not in NO_METRICS]
    return {name: spread_of([result[name] for result in results]) for name in names}
