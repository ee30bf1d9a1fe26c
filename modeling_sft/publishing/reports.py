"""Results of a folder: what `scripts/evaluate.py` wrote, as the only source of the numbers in a model card."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.evaluation import NO_METRICS, format_metric
from ..training.tasks import get_task

_REPORT_FIELDS = ("task", "dataset", "split", "num_examples", "num_parameters", "date", "results")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_NUMBER_CELL = re.compile(r"[\s\d.,%±+*-]*\d[\s\d.,%±+*-]*")


@dataclass(frozen=True)
class Result:
    """One number of an evaluation.

    Args:
        source: name of the JSON file.
        dataset, split, rotation: what was evaluated.
        num_sampled_tokens: K.
        num_examples: size of the split.
        metric: name of the metric.
        value: the number; a fraction unless `is_plain`.
        is_plain: whether it is no fraction, and not shown in percent.
    """

    source: str
    dataset: str
    split: str
    rotation: str
    num_sampled_tokens: int | None
    num_examples: int
    metric: str
    value: float
    is_plain: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """What tells it from other results on the same split."""
        arguments: dict[str, Any] = {"rotation": self.rotation}
        if self.num_sampled_tokens is not None:
            arguments["num_sampled_tokens"] = self.num_sampled_tokens
        return arguments

    @property
    def shown(self) -> str:
        """The number as a card's table shows it."""
        return format_metric(self.value, self.is_plain)


def read_reports(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Read all `evaluation*.json` of a folder, by file name.

    Raises:
        ValueError: if there is none, or one is no report of `scripts/evaluate.py`.
    """
    reports = {}
    for path in sorted(Path(folder).glob("evaluation*.json")):
        report = read_json(path, _REPORT_FIELDS, "scripts/evaluate.py")
        if not report["results"]:
            raise ValueError(f"{path.name} has no results: run scripts/evaluate.py with --save again.")
        reports[path.name] = report
    if not reports:
        raise ValueError(f"There is no evaluation.json in `folder` {folder}: run scripts/evaluate.py --save on it.")
    return reports


def read_json(path: Path, fields: Sequence[str], script: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        fields: names that it must have.
        script: what writes such files.

    Raises:
        ValueError: if the file cannot be read, or a field is missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is missing or damaged ({error}): run {script} again, or restore it.") from error
    missing = [name for name in fields if not isinstance(content, dict) or name not in content]
    if missing:
        raise ValueError(f"{path.name} has no {', '.join(missing)}: it must be a file of {script}.")
    return dict(content)


def results_of(reports: Mapping[str, Mapping[str, Any]]) -> list[Result]:
    """List the metrics of reports, in their order."""
    return [result for source, report in reports.items() for result in _results_of(source, report)]


def _results_of(source: str, report: Mapping[str, Any]) -> Iterator[Result]:
    plain = get_task(report["task"]).plain_metrics
    for rotation, values in report["results"].items():
        metrics = {name: value for name, value in values.items() if name not in NO_METRICS}
        if "sampled" in values:
            passes = values["sampled"]
            metrics[f"{passes['metric']}, mean of {len(passes['values'])} sampled passes"] = passes["mean"]
        for name, value in metrics.items():
            yield Result(
                source=source,
                dataset=report["dataset"],
                split=report["split"],
                rotation=rotation,
                num_sampled_tokens=report.get("num_sampled_tokens"),
                num_examples=report["num_examples"],
                metric=name,
                value=float(value),
                is_plain=name.partition(",")[0] in plain,
            )


def numbers_of(reports: Mapping[str, Mapping[str, Any]]) -> set[float]:
    """All numbers that reports contain, wherever they stand, and fractions also in percent."""
    numbers: set[float] = set()

    def collect(value: Any) -> None:
        if isinstance(value, Mapping):
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.add(float(value))
            if isinstance(value, float):
                numbers.add(100 * value)

    for report in reports.values():
        collect({name: value for name, value in report.items() if name not in ("versions", "date", "command")})
    return numbers


def has_source(text: str, numbers: set[float]) -> bool:
    """Whether a text is one of some numbers: a decimal fraction may be rounded, an integer may not."""
    text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return False
    if value in numbers:
        return True
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return decimals > 0 and any(abs(value - number) <= 0.5000001 * 10.0**-decimals for number in numbers)


def rows_under(text: str, words: str) -> Iterator[list[str]]:
    """The rows of all tables under the headings that contain some words, in any case, as their cells."""
    level = 0  # of the heading with the words that the line stands under; 0 for none
    for line in text.splitlines():
        heading = re.match(r"(#+)\s+(.*)", line)
        if heading and (level == 0 or len(heading[1]) <= level):
            level = len(heading[1]) if words.lower() in heading[2].lower() else 0
        elif level and line.lstrip().startswith("|"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def unsourced_number(rows: Iterable[Sequence[str]], numbers: set[float]) -> str | None:
    """The first number, in a cell of numbers alone, that is none of some numbers; None if there is no such one."""
    for cell in (cell for row in rows for cell in row):
        if _NUMBER_CELL.fullmatch(cell):
            for number in _NUMBER.findall(cell):
                if not has_source(number, numbers):
                    return number
    return None
