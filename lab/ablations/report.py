"""Ablations as text: Markdown tables, and the page of committed results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from modeling_sft.training.evaluation import format_metric, spread_of
from modeling_sft.training.tasks import get_task

from .differences import Difference, difference_of, ordered_variants, reference_of
from .grid import grid_averages
from .inference import inference_label

_INTRODUCTION = (
    "Written by `python scripts/ablate.py --report ... --docs docs/ablations.md` from the results of "
    "`scripts/ablate.py` in `docs/ablations/`. Do not edit this page.",
    "",
    "Each study changes one recipe, shortened so that a training takes minutes: the numbers rank choices, and are no "
    "results of the published recipes ([results.md](results.md)). Every variant is trained once per seed and measured "
    "on validation data, which the weights were not fitted to; the test split is not touched. Settings of inference "
    "(systematic or topk, K) change the selection of the same trained weights. A deviation is the standard deviation "
    "between seeds (divisor n - 1). Runs of one seed share the split of the data and the order of its batches, so a "
    "variant is compared with the reference seed by seed: the mean of these differences stands with the 95 % "
    "confidence interval of Student's t, and where that contains 0 it is called a tie: the seeds do not tell the two "
    "apart. An interval knows the spread between these few seeds alone: where their differences happen to be alike it "
    "is too narrow, ± 0.00 in the extreme. The intervals are not corrected for the number of variants: of twenty that "
    "change nothing, one is expected to look like a difference.",
)


def read_results(path: str | Path) -> dict[str, Any]:
    """Read the results that [`ablate`] wrote.

    Raises:
        ValueError: if there is no such file, or it does not hold results.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There are no results at `{path}`: name a results.json that scripts/ablate.py wrote.")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`{path}` is not valid JSON: {error}") from error
    names = ("study", "task", "metric", "comparisons")
    if not isinstance(results, dict) or any(name not in results for name in names):
        raise ValueError(f"`{path}` does not hold results of an ablation ({', '.join(names)}).")
    if not isinstance(results.get("hardware"), list):
        raise ValueError(
            f"`hardware` in `{path}` is no list of machines: write it anew, scripts/ablate.py ... --resume."
        )
    return results


def format_ablation(results: Mapping[str, Any]) -> str:
    """Lay out the results of [`ablate`]: one Markdown table per comparison, the reference's row first and bold.

    A grid gets a second table, which averages each setting over the others. Fractions are in percent, differences in
    points. The number after `±` is the standard deviation between seeds for a mean, and half of the 95 % confidence
    interval of the mean over seeds for a difference.
    """
    sections = (_section(comparison, results) for comparison in results["comparisons"].values())
    return "\n\n".join("\n".join(section) for section in sections)


def format_measurement(results: Mapping[str, Any]) -> str:
    """Say in a sentence what was measured, on what hardware and when."""
    changes = ", ".join(f"`{override}`" for override in results["overrides"])
    runs = results["num_runs"]
    unfinished = "" if runs["finished"] >= runs["planned"] else f", {runs['planned'] - runs['finished']} not finished"
    return (
        f"Recipe `{results['recipe']}`{f' with {changes}' if changes else ''}: {results['dataset']}, "
        f"{results['num_examples']} validation examples, seeds {', '.join(map(str, results['seeds']))}, "
        f"{runs['planned']} trainings{unfinished}. Measured until {results['date'][:10]} on "
        f"{_machines(results['hardware'])}."
    )


def render_ablations_page(studies: Sequence[Mapping[str, Any]], figures: Mapping[str, str]) -> str:
    """Render the page of several studies as Markdown.

    Args:
        studies: what [`read_results`] read.
        figures: study -> path of its figure, as seen from the page.
    """
    lines = ["# Ablations", "", *_INTRODUCTION]
    for results in studies:
        name = results["study"]
        lines += ["", f"## {name}", "", format_measurement(results), "", f"![{name}]({figures[name]})", ""]
        lines.append(format_ablation(results))
    return "\n".join(lines) + "\n"


def _section(comparison: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    is_plain = results["metric"] in get_task(results["task"]).plain_metrics
    metric = results["metric"].replace("_", " ") + ("" if is_plain else " (%)")
    yield f"### {comparison['title']}"
    yield ""
    yield f"| variant | inference | {metric} | against reference | of each seed | training loss | CPU seconds |"
    yield "|---|---|---|---|---|---|---|"
    reference = reference_of(comparison)
    for label, variant in ordered_variants(comparison):
        name = f"**{label}** (reference)" if variant["is_reference"] else label
        for entry in variant["inference"]:
            against = "" if variant["is_reference"] else _against(difference_of(variant, entry, reference), is_plain)
            cells = [name, inference_label(entry["settings"]), _mean(entry, is_plain), against]
            cells.append(", ".join(format_metric(value, is_plain) for value in entry["values"]))
            cells += [_average(variant["final_training_loss"], 3), _cpu_seconds(variant, results["hardware"])]
            yield f"| {' | '.join(cells)} |"
    if averages := grid_averages(comparison):
        yield ""
        yield "Each setting averaged over all values of the others, seed by seed:"
        yield ""
        yield f"| setting | value | {metric} | against reference | of each seed |"
        yield "|---|---|---|---|---|"
        for average in averages:
            values = list(average.by_seed.values())
            cells = [average.setting, f"**{average.value}**" if average.is_reference else average.value]
            cells += [_mean(spread_of(values), is_plain)]
            cells.append("" if average.is_reference else _against(average.difference, is_plain))
            cells.append(", ".join(format_metric(value, is_plain) for value in values))
            yield f"| {' | '.join(cells)} |"


def _machines(hardware: Sequence[str]) -> str:
    """The machines of a study; if there are several, with the letters that mark their processor times."""
    if len(hardware) == 1:
        return hardware[0]
    marked = (f"{name} ({letter})" for letter, name in zip(ascii_lowercase, hardware, strict=False))
    return " and ".join(marked) + "; the letters stand behind processor times, which do not compare between machines"


def _cpu_seconds(variant: Mapping[str, Any], hardware: Sequence[str]) -> str:
    seconds = _average(variant["training_cpu_seconds"], 0)
    if len(hardware) == 1:
        return seconds
    letters = [letter for letter, name in zip(ascii_lowercase, hardware, strict=False) if name in variant["hardware"]]
    return f"{seconds} ({', '.join(letters)})"


def _against(difference: Difference | None, is_plain: bool) -> str:
    if difference is None:
        return "-"
    factor, digits = (1, 4) if is_plain else (100, 2)
    shown = f"{factor * difference.mean:+.{digits}f}"
    if difference.half_width is None:
        return shown
    return f"{shown} ± {factor * difference.half_width:.{digits}f}" + (" (tie)" if difference.is_tie else "")


def _mean(entry: Mapping[str, Any], is_plain: bool) -> str:
    deviation = "" if entry["std"] is None else f" ± {format_metric(entry['std'], is_plain)}"
    return format_metric(entry["mean"], is_plain) + deviation


def _average(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.{digits}f}" if known else "-"
