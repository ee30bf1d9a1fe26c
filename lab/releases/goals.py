"""The goals that released models are measured by, and their runs beside anchors and published results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modeling_sft.hub.optional import import_optional
from modeling_sft.training.recipe import reject_unknown_names
from modeling_sft.training.tasks import get_task

GOALS_NAME = "goals.yaml"
_SUMMARY_FIELDS = ("task", "dataset", "setting", "values", "metrics", "num_parameters", "training_cpu_seconds")
_PUBLISHED_FIELDS = ("model", "value", "source", "remark")


@dataclass(frozen=True)
class Goal:
    """The goal of a model and the results to compare it with, as one entry of `goals.yaml`.

    Args:
        name: name of the model, such as `"sft-imdb-bytes"`.
        recipe: name of its recipe; `RECIPE.json` is the summary of its runs.
        required, target: the result that the model must reach, and the result that it should reach.
        rotation: the rotation of the test data that counts.
        metric: the metric that counts; by default the main metric of the task. More must be better for both, or for
            neither.
        floor: recipe of the classical method that the model is to pass; a card of a model that does not says so.
        anchors: recipes of the models to compare with.
        published: results of others: `model`, `value`, `source` and, if data or budget differ, `remark`.
        note: what a reader must know to understand the results.
    """

    name: str
    recipe: str
    required: float | None = None
    target: float | None = None
    rotation: str = "none"
    metric: str | None = None
    floor: str | None = None
    anchors: Sequence[str] = ()
    published: Sequence[Mapping[str, Any]] = field(default_factory=list)
    note: str | None = None


def read_goals(results_dir: str | Path) -> dict[str, Goal]:
    """Read `goals.yaml` of a folder of results, by name of the model.

    Raises:
        ValueError: if the file is missing, or an entry has an unknown field or lacks a required one.
    """
    yaml = import_optional("yaml", "train")
    path = Path(results_dir) / GOALS_NAME
    if not path.is_file():
        raise ValueError(f"There is no {GOALS_NAME} in `results_dir` {results_dir}.")
    goals = {}
    for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        reject_unknown_names(entry, [f.name for f in dataclasses.fields(Goal)], name)
        for published in entry.get("published", []):
            reject_unknown_names(published, _PUBLISHED_FIELDS, f"{name}.published")
        try:
            goals[name] = Goal(name=name, **entry)
        except TypeError as error:
            raise ValueError(f"`{name}` in {GOALS_NAME} is incomplete: {error}.") from error
    return goals


def read_summary(results_dir: str | Path, recipe: str) -> dict[str, Any] | None:
    """Read the summary of a recipe's runs that `scripts/repeat.py` wrote; `None` if there is none yet.

    Raises:
        ValueError: if the file is damaged or not a summary.
    """
    path = Path(results_dir) / f"{recipe}.json"
    if not path.is_file():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged ({error}): copy it from the folder of the runs again.") from error
    missing = [name for name in _SUMMARY_FIELDS if name not in summary]
    if missing:
        raise ValueError(f"{path.name} has no {', '.join(missing)}: it must be a summary of scripts/repeat.py.")
    return dict(summary)


def metric_of(summary: Mapping[str, Any], goal: Goal) -> dict[str, Any]:
    """Values, mean and deviation over the runs of a summary, for the metric and rotation of a goal.

    Raises:
        ValueError: if the runs were not evaluated with this metric and rotation.
    """
    metrics = summary["metrics"] if goal.rotation == "none" else summary.get("rotated", {}).get(goal.rotation)
    if metrics is None:
        raise ValueError(f"The runs on {summary['dataset']} were not evaluated under rotation {goal.rotation}.")
    name = goal.metric or get_task(summary["task"]).main_metric
    if name not in metrics:
        raise ValueError(f"`metric` of {goal.name} is {name!r}, and its runs have {', '.join(metrics)}.")
    return dict(metrics[name])


def compare(goal: Goal, results_dir: str | Path) -> dict[str, Any] | None:
    """Put the runs of a model beside its floor, its anchors and published results.

    Args:
        goal: the model.
        results_dir: folder with the summaries.

    Returns:
        `dict`, or `None` while the model has no summary: `runs` (first the model's own, then those of floor and
        anchors with a summary), `floor` (its recipe, if it has a summary), `published`, and what was measured. Results
        are fractions unless `is_plain` is true.
    """
    own = read_summary(results_dir, goal.recipe)
    if own is None:
        return None
    task = get_task(own["task"])
    metric = goal.metric or task.main_metric
    runs = []
    for recipe in (goal.recipe, *([goal.floor] if goal.floor else ()), *goal.anchors):
        summary = read_summary(results_dir, recipe)
        if summary is None:
            continue
        if (summary["task"], summary["dataset"]) != (own["task"], own["dataset"]):
            raise ValueError(f"`floor` and `anchors` of {goal.name}: {recipe} is of another task or data set.")
        seconds = summary["training_cpu_seconds"]
        runs.append(
            {
                "recipe": recipe,
                "baseline": summary.get("baseline"),
                "setting": summary["setting"],
                "settings": summary["values"],
                **metric_of(summary, goal),
                # Classical methods have none that could be compared.
                "num_parameters": max((size for size in summary["num_parameters"] if size is not None), default=None),
                "training_cpu_minutes": [None if value is None else round(value / 60, 1) for value in seconds],
                "hardware": summary.get("hardware"),
                "date": summary.get("date"),
            }
        )
    return {
        "name": goal.name,
        "dataset": own["dataset"],
        "metric": metric,
        "is_plain": metric in task.plain_metrics,
        "greater_is_better": task.greater_is_better,
        "rotation": goal.rotation,
        "required": goal.required,
        "target": goal.target,
        "runs": runs,
        "floor": goal.floor if any(run["recipe"] == goal.floor for run in runs) else None,
        "published": [dict(entry) for entry in goal.published],
        "note": goal.note,
    }
