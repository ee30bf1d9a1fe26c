"""The page of results, with all goals and what was reached; it is made from the summaries of runs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modeling_sft.training.evaluation import format_metric

from .comparison import comparison_tables, floor_of, passes_floor
from .goals import Goal, compare

_INTRODUCTION = (
    "Written by `python scripts/results.py` from the summaries in `docs/results/`, which `scripts/repeat.py` wrote; "
    "`goals.yaml` there holds the goals and the results of others. Do not edit this page.",
    "",
    "Every run of a recipe is listed. Weights were selected on a validation split, never on the test split, which was "
    "read once for each run. Inference is deterministic. A deviation is the standard deviation between runs (divisor "
    "n - 1). A goal is reached if the median run, the one that is released, reaches it. CPU minutes are the processor "
    "time of training, with the validation during it.",
    "",
    "A floor is what counting, trees and linear models of scikit-learn reach on the same rows and splits, by a recipe "
    "of the same script ([the floor](#the-floor)). It is passed if the mean of a model's runs is better than its "
    "mean. Its CPU minutes are those of features and of all fits that validation chooses among.",
)

_FLOOR = (
    "| baseline | input | features | choices, by validation |",
    "|---|---|---|---|",
    "| `hashed_counts` | texts | words and pairs of words, hashed into 2^20 counts, tf-idf | strength of the "
    "regularization of logistic regression |",
    "| `hashed_counts` | graphs | colours of Weisfeiler-Lehman in 0 to 3 rounds, hashed into 4,096 counts | random "
    "forest, or linear support vector machine |",
    "| `fingerprints` | molecules | count fingerprints (ECFP) of 2,048 entries, and RDKit's properties of molecules "
    "with `model.properties` | radius 2 or 3, random forest or boosted trees, one for each label |",
    "| `shape_histograms` | all points of clouds, with normals | distances and angles of 6,000 pairs of points, and "
    "with `model.coordinates` the share of points in 8 x 8 x 8 cells | features per split of extremely randomised "
    "trees |",
    "| `value_trees` | sequences of values of one length | the values | none: extremely randomised trees |",
    "",
    "`python scripts/repeat.py configuration/nci1/floor.yaml --over dataset.fold=0,1,2,3,4,5,6,7,8,9 --data_dir "
    "DATA_FOLDER` runs one. No pickle is kept: `scripts/evaluate.py` fits the run anew, with what validation chose. "
    "Masked language modeling has no floor.",
)


def render_results_page(goals: Mapping[str, Goal], results_dir: str | Path) -> str:
    """Render the page as Markdown.

    Args:
        goals: what [`read_goals`] read.
        results_dir: folder of the summaries.

    Raises:
        ValueError: if a summary is damaged, or an anchor does not fit its model.
    """
    comparisons = {name: compare(goal, results_dir) for name, goal in goals.items()}
    lines = ["# Results", "", *_INTRODUCTION, "", "## Overview", ""]
    lines += ["| model | data set | metric | mean ± deviation | floor | required | target |", f"|{'---|' * 7}"]
    for name, goal in goals.items():
        lines.append(f"| {' | '.join(_overview(name, goal, comparisons[name]))} |")
    for name, comparison in comparisons.items():
        if comparison is not None:
            lines += ["", f"## {name}", "", *_section(comparison)]
    lines += ["", "## The floor", "", *_FLOOR]
    return "\n".join(lines) + "\n"


def _overview(name: str, goal: Goal, comparison: dict[str, Any] | None) -> tuple[str, ...]:
    if comparison is None:
        unmeasured = ("" if each is None else f"{each:g}: not measured" for each in (goal.required, goal.target))
        return (name, "", "", "", "", *unmeasured)
    plain, run = comparison["is_plain"], comparison["runs"][0]
    deviation = "" if run["std"] is None else f" ± {format_metric(run['std'], plain)}"
    rotation = "" if goal.rotation == "none" else f", test data rotated ({goal.rotation})"
    return (
        f"[{name}](#{name})",
        comparison["dataset"] + rotation,
        comparison["metric"].replace("_", " ") + ("" if plain else " (%)"),
        format_metric(run["mean"], plain) + deviation,
        _floor_verdict(comparison),
        _verdict(comparison, goal.required),
        _verdict(comparison, goal.target),
    )


def _floor_verdict(comparison: Mapping[str, Any]) -> str:
    """The mean of the floor, if there is one, and whether the model passes it."""
    floor = floor_of(comparison)
    if floor is None:
        return ""
    passed = "passed" if passes_floor(comparison, floor) else "**not passed**"
    return f"{format_metric(floor['mean'], comparison['is_plain'])}: {passed}"


def _verdict(comparison: Mapping[str, Any], goal: float | None) -> str:
    """A goal, if there is one, and whether the median run, which is the released one, reaches it."""
    if goal is None:
        return ""
    values = sorted(comparison["runs"][0]["values"])
    median = values[(len(values) - 1) // 2]
    reached = median >= goal if comparison["greater_is_better"] else median <= goal
    return f"{format_metric(goal, comparison['is_plain'])}: {'reached' if reached else '**missed**'}"


def _section(comparison: Mapping[str, Any]) -> Iterator[str]:
    yield comparison_tables(comparison)
    yield ""
    own = comparison["runs"][0]
    yield f"Runs differ in `{own['setting']}`: {', '.join(map(str, own['settings']))}."
    machines: dict[str, list[Mapping[str, Any]]] = {}
    for run in comparison["runs"]:
        if run["hardware"] and run["date"]:
            machines.setdefault(run["hardware"], []).append(run)
    for hardware, runs in machines.items():
        dates = sorted(run["date"][:10] for run in runs)
        # Processor times of different machines do not compare, so name the runs of each machine.
        names = ", ".join(f"`{run['recipe']}`" for run in runs)
        which = f" ({names})" if len(machines) > 1 else ""
        yield f"Measured on {hardware}{which}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
