"""The sections of a model card that come from `analysis.json`, and the check of their numbers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .analysis_tables import ANALYSIS_FIGURE, ANALYSIS_NAME, FAILURES_FIGURE, section_tables
from .reports import numbers_of, read_json, unsourced_number
from .text import rows_under

_FIELDS = ("task", "dataset", "split", "num_examples", "num_parameters", "main_metric", "hardware")
# Words in the heading of each section, by which the check finds it again.
_HEADINGS = {
    "sampled_tokens": "against K",
    "robustness": "Robustness",
    "calibration": "Calibration",
    "throughput": "Throughput",
    "failures": "Failure cases",
}


def read_analysis(folder: Path) -> dict[str, Any] | None:
    """Read the analysis of a folder, None without one.

    Raises:
        ValueError: if it is damaged, or no file of `scripts/analyze.py`.
    """
    path = folder / ANALYSIS_NAME
    return read_json(path, _FIELDS, "scripts/analyze.py") if path.is_file() else None


def render_analysis(analysis: Mapping[str, Any] | None, folder: Path) -> str:
    """Write the sections of an analysis in Markdown; nothing without one.

    Args:
        analysis: what [`read_analysis`] read.
        folder: its folder, which may have figures.
    """
    if analysis is None:
        return ""
    lines = []
    for section, table in section_tables(dict(analysis)).items():
        heading = _HEADINGS[section]
        if section == "sampled_tokens":
            heading = f"{analysis['main_metric'].replace('_', ' ').capitalize()} {heading}"
        lines += [f"## {heading}", "", _INTRODUCTIONS[section].format(**_words_of(analysis, section)), ""]
        lines += [*_markdown(table), ""]
        if section == "failures":
            lines += _wrong_examples(analysis["failures"])
    for name, text in (
        (ANALYSIS_FIGURE, "Metric against K and under corruptions, reliability diagram"),
        (FAILURES_FIGURE, "Failure cases"),
    ):
        if (folder / name).is_file():
            lines += [f"![{text}]({name})", ""]
    return "\n".join(lines) + "\n"


def check_analysis(text: str, analysis: Mapping[str, Any] | None) -> None:
    """Check that every number in the tables of these sections has a source in the same section of the analysis.

    Args:
        text: the card.
        analysis: what [`read_analysis`] read.

    Raises:
        ValueError: if a number has no source.
    """
    for section, heading in _HEADINGS.items():
        numbers = numbers_of({ANALYSIS_NAME: {section: (analysis or {}).get(section)}})
        number = unsourced_number(rows_under(text, heading), numbers)
        if number is not None:
            raise ValueError(
                f'The card\'s table under "{heading}" says {number}, which has no source in {ANALYSIS_NAME}: correct '
                "it, run scripts/analyze.py, or delete README.md to have it written anew."
            )


_INTRODUCTIONS = {
    "sampled_tokens": "On {examples} of `{dataset}`, K set after training.",
    "robustness": "On {examples} of `{dataset}`, each changed at random; the first line of each corruption is the "
    "data as it is.",
    "calibration": "On {examples} of `{dataset}`: expected calibration error over 15 bins of equal width, negative "
    "log-likelihood in nats.",
    "throughput": "The forward pass alone, in {dtype}, attention backend `{attention}`, on {hardware}: the median of "
    "several batches.",
    "failures": "On {examples} of `{dataset}`.",
}


def _words_of(analysis: Mapping[str, Any], section: str) -> dict[str, Any]:
    throughput = analysis.get("throughput", {})
    return {
        "examples": f"{analysis['num_examples']:,} examples of the {analysis['split']} split",
        "dataset": analysis["dataset"],
        "hardware": analysis["hardware"],
        "dtype": throughput.get("dtype"),
        "attention": throughput.get("attention_implementation"),
    }


def _wrong_examples(failures: Mapping[str, Any]) -> Iterator[str]:
    if failures.get("examples"):
        table = [["index in the split", "true class", "predicted class", "confidence"]]
        for each in failures["examples"]:
            table.append([str(each["index"]), each["true"], each["predicted"], f"{each['confidence']:.4f}"])
        yield from (
            f"{failures['num_wrong']:,} examples are wrong. Those with the most confident answers:",
            "",
            *_markdown(table),
            "",
        )


def _markdown(table: Sequence[Sequence[str]]) -> list[str]:
    names = [column for column, title in enumerate(table[0]) if title in ("true class", "predicted class", "label")]
    lines = [_line(table[0]), "|---" * len(table[0]) + "|"]
    for row in table[1:]:
        # As code: a class may be named by a number, which is no result.
        lines.append(_line([f"`{cell}`" if column in names else cell for column, cell in enumerate(row)]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
