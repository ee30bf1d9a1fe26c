"""A release: the median run of several runs of one recipe, laid out as a repository of the Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modeling_sft.publishing.card import without_folders
from modeling_sft.publishing.files import CARD_NAME
from modeling_sft.training.evaluation import EVALUATION_NAME
from modeling_sft.training.recipe import RECIPE_NAME
from modeling_sft.training.repetition import SUMMARY_NAME, run_folder
from modeling_sft.training.run import CURVES_NAME, LOG_NAME
from modeling_sft.training.tasks import get_task, load_recipe
from modeling_sft.training.writing import replace_text

from ..analysis.tables import ANALYSIS_NAME
from .comparison import COMPARISON_NAME
from .example import EXAMPLE_NAME, check_example, write_example
from .goals import Goal, compare, metric_of, read_summary


def release(goal: Goal, runs: str | Path, output_dir: str | Path, results_dir: str | Path) -> dict[str, Any]:
    """Lay out the run with the median result as a repository, and keep the summary of all runs.

    Paths of the training machine are removed from the commands in summary, training log and evaluation.

    Args:
        goal: the goal of the released model.
        runs: folder that `scripts/repeat.py` wrote, with its `summary.json`.
        output_dir: folder of releases; `output_dir/NAME` is replaced.
        results_dir: folder of summaries; gets `RECIPE.json`.

    Returns:
        `dict`: The content of `comparison.json`.

    Raises:
        ValueError: if the runs are incomplete, or not of the recipe that the goal names.
    """
    runs, folder = Path(runs), Path(output_dir) / goal.name
    if not (runs / SUMMARY_NAME).is_file():
        raise ValueError(f"There is no {SUMMARY_NAME} in `runs` {runs}: run scripts/repeat.py, with --resume.")
    summary = json.loads((runs / SUMMARY_NAME).read_text(encoding="utf-8"))
    if summary.get("recipe") != goal.recipe:
        raise ValueError(f"`runs` {runs} are of recipe {summary.get('recipe')}, and {goal.name} needs {goal.recipe}.")
    summary["command"] = without_folders(summary["command"])
    Path(results_dir).mkdir(parents=True, exist_ok=True)
    replace_text(Path(results_dir) / f"{goal.recipe}.json", json.dumps(summary, indent=2) + "\n")

    source = runs / run_folder(summary["setting"], _median_setting(summary, goal))
    model, processor = _load(source)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(source / RECIPE_NAME, folder / RECIPE_NAME)
    if (source / CURVES_NAME).is_file():
        shutil.copyfile(source / CURVES_NAME, folder / CURVES_NAME)
    shutil.copyfile(source / LOG_NAME, folder / LOG_NAME)
    report = json.loads((source / EVALUATION_NAME).read_text(encoding="utf-8"))
    replace_text(folder / EVALUATION_NAME, json.dumps(report | {"model": goal.name}, indent=2) + "\n")
    write_example(folder / EXAMPLE_NAME, model, processor)
    return _save(goal, folder, model, processor, results_dir)


def refresh(goal: Goal, output_dir: str | Path, results_dir: str | Path) -> dict[str, Any]:
    """Renew the configuration, the processor and the comparison of a release; weights and measurements stay.

    Paths of the machine are removed from a new analysis. The card is deleted, and `scripts/publish.py` writes it anew.

    Args:
        goal, output_dir, results_dir: as for [`release`].

    Raises:
        ValueError: if there is no such release, or the present code gives other logits for its stored example.
    """
    folder = Path(output_dir) / goal.name
    if not folder.is_dir():
        raise ValueError(f"There is no release {folder}: pass the runs that it is to be made of.")
    model, processor = _load(folder)
    check_example(folder / EXAMPLE_NAME, model)
    return _save(goal, folder, model, processor, results_dir)


def _load(folder: Path) -> tuple[Any, Any]:
    recipe = load_recipe(folder)
    task = get_task(recipe.task)
    return task.model_class_of(recipe).from_pretrained(folder).eval(), task.load_processor(folder)


def _save(goal: Goal, folder: Path, model: Any, processor: Any, results_dir: str | Path) -> dict[str, Any]:
    """Save a model, its processor and the comparison, without code, which publishing adds."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for path in folder.glob("*.py"):
        path.unlink()
    summary, comparison = read_summary(results_dir, goal.recipe), compare(goal, results_dir)
    if summary is None or comparison is None:
        raise ValueError(f"There is no {goal.recipe}.json in `results_dir` {results_dir}: release the runs anew.")
    comparison["released"] = {summary["setting"]: _median_setting(summary, goal)}
    replace_text(folder / COMPARISON_NAME, json.dumps(comparison, indent=2) + "\n")
    for name in (LOG_NAME, EVALUATION_NAME, ANALYSIS_NAME):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            content["command"] = without_folders(content["command"])
            replace_text(folder / name, json.dumps(content, indent=2) + "\n")
    (folder / CARD_NAME).unlink(missing_ok=True)
    return comparison


def _median_setting(summary: Mapping[str, Any], goal: Goal) -> Any:
    """The seed of the run with the median result; for an even number of runs, the lower of the two middle results."""
    results = metric_of(summary, goal)["values"]
    order = np.argsort(results, kind="stable")
    return summary["values"][int(order[(len(order) - 1) // 2])]
