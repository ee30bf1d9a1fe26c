"""The page of results, with all goals and what was reached; it is made from the summaries of runs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modeling_sft.training.evaluation import format_metric

from .comparison import comparison_tables
from .goals import Goal, compare

_INTRODUCTION = (
    "Written by `python scripts/results.py` from the summaries in `docs/results/`, which `scripts/repeat.py` wrote; "
    "`goals.yaml` there holds the goals and the results of others. Do not edit this page.",
    "",
    "Every run of a recipe is listed. Weights were selected on a validation split, never on the test split, which was "
    "read once for each run. Inference is deterministic. A deviation is the standard deviation between runs (divisor "
    "n - 1). A goal is reached if the median run, the one that is released, reaches it. CPU minutes are the processor "
    "time of training, with the validation during it.",
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
    lines += ["| model | data set | metric | mean ± deviation | required | target |", "|---|---|---|---|---|---|"]
    for name, goal in goals.items():
        lines.append(f"| {' | '.join(_overview(name, goal, comparisons[name]))} |")
    for name, comparison in comparisons.items():
        if comparison is not None:
            lines += ["", f"## {name}", "", *_section(comparison)]
    return "\n".join(lines) + "\n"


def _overview(name: str, goal: Goal, comparison: dict[str, Any] | None) -> tuple[str, ...]:
    if comparison is None:
        unmeasured = ("" if each is None else f"{each:g}: not measured" for each in (goal.required, goal.target))
        return (name, "", "", "", *unmeasured)
    plain, run = comparison["is_plain"], comparison["runs"][0]
    deviation = "" if run["std"] is None else f" ± {format_metric(run['std'], plain)}"
    rotation = "" if goal.rotation == "none" else f", test data rotated ({goal.rotation})"
    return (
        f"[{name}](#{name})",
        comparison["dataset"] + rotation,
        comparison["metric"].replace("_", " ") + ("" if plain else " (%)"),
        format_metric(run["mean"], plain) + deviation,
        _verdict(comparison, goal.required),
        _verdict(comparison, goal.target),
    )


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
