"""The sections of a model card that come from `analysis.json`, and the check of their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling_sft.publishing.reports import numbers_of, rows_under, unsourced_number
from modeling_sft.publishing.sections import CardSection

from .tables import ANALYSIS_FIGURE, ANALYSIS_NAME, FAILURES_FIGURE, section_tables

# Words in the heading of each section, by which the check finds it again.
_HEADINGS = {
    "sampled_tokens": "against K",
    "robustness": "Robustness",
    "calibration": "Calibration",
    "throughput": "Throughput",
    "failures": "Failure cases",
}


class AnalysisSection(CardSection):
    """The sections of an analysis."""

    file_name = ANALYSIS_NAME
    fields = ("task", "dataset", "split", "num_examples", "num_parameters", "main_metric", "hardware")
    script = "scripts/analyze.py"

    def render(self, content: Mapping[str, Any], folder: Path) -> str:
        lines = []
        for section, table in section_tables(dict(content)).items():
            heading = _HEADINGS[section]
            if section == "sampled_tokens":
                heading = f"{content['main_metric'].replace('_', ' ').capitalize()} {heading}"
            lines += [f"## {heading}", "", _INTRODUCTIONS[section].format(**_words_of(content, section)), ""]
            lines += [*_markdown(table), ""]
            if section == "failures":
                lines += _wrong_examples(content["failures"])
        for name, text in (
            (ANALYSIS_FIGURE, "Metric against K and under corruptions, reliability diagram"),
            (FAILURES_FIGURE, "Failure cases"),
        ):
            if (folder / name).is_file():
                lines += [f"![{text}]({name})", ""]
        return "\n".join(lines)

    def check(self, text: str, content: Mapping[str, Any] | None) -> None:
        """Check that every number in the tables of these sections also stands in the same section of the analysis."""
        for section, heading in _HEADINGS.items():
            numbers = numbers_of({ANALYSIS_NAME: {section: (content or {}).get(section)}})
            number = unsourced_number(rows_under(text, heading), numbers)
            if number is not None:
                raise ValueError(
                    f'The card\'s table under "{heading}" says {number}, which has no source in {ANALYSIS_NAME}: '
                    "correct it, run scripts/analyze.py, or delete README.md to have it written anew."
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
        # Names are set as code: a class may be named by a number, which the check must not take for a result.
        lines.append(_line([f"`{cell}`" if column in names else cell for column, cell in enumerate(row)]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
