"""An analysis as tables, for the card and the terminal."""

from collections.abc import Sequence
from typing import Any

from modeling_sft.training.tasks import get_task

ANALYSIS_NAME = "analysis.json"
ANALYSIS_FIGURE = "analysis.png"
FAILURES_FIGURE = "failures.png"


def metric_columns(task: str, entry: dict[str, Any]) -> dict[str, str]:
    """Titles of the metrics in an entry of `sampled_tokens` or `robustness`, by name; fractions are in percent."""
    settings = ("num_sampled_tokens", "is_trained", "is_all", "severity", "setting")
    plain = get_task(task).plain_metrics
    return {name: name.replace("_", " ") + ("" if name in plain else " (%)") for name in entry if name not in settings}


def format_metric(task: str, name: str, value: float | None) -> str:
    """A metric as tables show it: `97.22` for a fraction, four decimals otherwise, `-` if it is not defined."""
    if value is None:
        return "-"
    return f"{value:.4f}" if name in get_task(task).plain_metrics else f"{100 * value:.2f}"


def format_share(value: float | None) -> str:
    """A fraction with four decimals, or `-` if it is not defined."""
    return "-" if value is None else f"{value:.4f}"


def section_tables(report: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The tables of an analysis, by section; the first row of each holds the titles.

    Args:
        report: what [`analyze`] returned.
    """
    tables: dict[str, list[list[str]]] = {}
    task = report["task"]
    if "sampled_tokens" in report:
        entries = report["sampled_tokens"]
        columns = metric_columns(task, entries[0])
        tables["sampled_tokens"] = [["K", "", *columns.values()]]
        for entry in entries:
            words = [word for word in ("trained", "all") if entry[f"is_{word}"]]
            metrics = [format_metric(task, name, entry[name]) for name in columns]
            tables["sampled_tokens"].append([str(entry["num_sampled_tokens"]), ", ".join(words), *metrics])
    if "robustness" in report:
        columns = metric_columns(task, next(iter(report["robustness"].values()))[0])
        tables["robustness"] = [["corruption", "setting", *columns.values()]]
        for corruption, entries in report["robustness"].items():
            for entry in entries:
                metrics = [format_metric(task, name, entry[name]) for name in columns]
                tables["robustness"].append([corruption.replace("_", " "), entry["setting"], *metrics])
    if "calibration" in report:
        names = ("expected_calibration_error", "negative_log_likelihood", "brier_score")
        values = [format_share(report["calibration"][name]) for name in names]
        titles = [name.replace("_", " ") for name in names]
        tables["calibration"] = [
            ["predictions", *titles],
            [str(report["calibration"]["num_predictions"]), *values],
        ]
    if "throughput" in report:
        tables["throughput"] = [["batch size", "examples per second", "tokens per second", "real tokens per batch"]]
        for batch in report["throughput"]["batches"]:
            names = ("examples_per_second", "tokens_per_second", "real_tokens")
            tables["throughput"].append([str(batch["batch_size"]), *(f"{batch[name]:.1f}" for name in names)])
    if "failures" in report:
        tables["failures"] = _failure_table(report["failures"])
    return tables


def format_analysis(report: dict[str, Any]) -> str:
    """Lay out an analysis as tables for the terminal.

    Args:
        report: what [`analyze`] returned.
    """
    lines = [f"{report['model']}: {report['dataset']}, {report['split']} split, {report['num_examples']} examples"]
    for section, table in section_tables(report).items():
        lines += ["", section.replace("_", " "), _aligned(table)]
    return "\n".join(lines)


def _failure_table(failures: dict[str, Any]) -> list[list[str]]:
    if "labels" in failures:
        rows = [
            [
                label["name"],
                str(label["known"]),
                str(label["positive"]),
                format_share(label["average_precision"]),
                format_share(label["roc_auc"]),
            ]
            for label in failures["labels"]
        ]
        return [["label", "known", "positive", "average precision", "area under ROC"], *rows]
    return [
        ["true class", "predicted class", "examples"],
        *([each["true"], each["predicted"], str(each["count"])] for each in failures["confusions"]),
    ]


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
