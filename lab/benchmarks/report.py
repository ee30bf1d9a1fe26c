"""Tables of a benchmark's results in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .cases import BenchmarkSuite, Goal
from .results import ResultRow

Cells = dict[tuple[str, int], ResultRow]


def grouped(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """Groups of rows that can be compared with each other, in the order of first appearance."""
    groups: dict[tuple, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.values())


def markdown_report(rows: Sequence[ResultRow], suites: Mapping[str, BenchmarkSuite], remarks: Sequence[str]) -> str:
    """Tables of speed and memory for every group of comparable rows, with ratios to the suite's reference.

    Args:
        rows: results.
        suites: suites by name.
        remarks: lines to put first, such as the findings of the correctness check.
    """
    parts = ["# Benchmark", "\n".join(f"- {remark}" for remark in remarks)]
    for group in grouped(rows):
        parts += _section(group, suites[group[0].suite])
    return "\n\n".join(part for part in parts if part) + "\n"


def label_of(suite: BenchmarkSuite, model: str) -> str:
    """The label of a case, or its name if the suite no longer has it."""
    return suite.cases[model].label if model in suite.cases else model


def models_of(rows: Sequence[ResultRow], suite: BenchmarkSuite) -> list[str]:
    """The models that rows are about, in the suite's order; models that it no longer has come last."""
    present = {row.model for row in rows}
    return [name for name in suite.cases if name in present] + sorted(present - set(suite.cases))


def _section(rows: list[ResultRow], suite: BenchmarkSuite) -> list[str]:
    row = rows[0]
    cells: Cells = {(row.model, row.length): row for row in rows}
    models = models_of(rows, suite)
    reference = suite.reference if suite.reference in models else models[0]
    seconds = "CUDA second" if row.device.startswith("cuda") else "CPU second"
    name = label_of(suite, reference)
    parts = [
        f"## {row.suite}: {row.mode}, {row.dtype}",
        f"{row.hardware}, {row.threads} thread(s). {row.size}. {suite.note}".strip(),
        f"Thousands of {suite.unit} per {seconds}; in parentheses the time in units of that of {name}:",
        _table(cells, models, suite, reference, _speed),
    ]
    if any(row.peak_mib is not None for row in rows):
        parts.append(f"Peak MiB of one pass beyond model and inputs; in parentheses in units of that of {name}:")
        parts.append(_table(cells, models, suite, reference, _memory))
    spread = _largest_spread(rows)
    if spread is not None:
        parts.append(f"Largest spread of the rounds, (max - min) / median: {100 * spread:.0f} %.")
    goals = [line for goal in suite.goals for line in _goal_lines(goal, cells, suite, row.mode)]
    return [*parts, "\n".join(goals)]


def _table(
    cells: Cells,
    models: Sequence[str],
    suite: BenchmarkSuite,
    reference: str,
    entry: Callable[[ResultRow, ResultRow | None], str],
) -> str:
    lengths = sorted({length for _, length in cells})
    batches = {length: {row.batch_size for (_, other), row in cells.items() if other == length} for length in lengths}
    titles = [f"N = {n:,}, B = {', '.join(map(str, sorted(batches[n])))}" for n in lengths]
    lines = [
        f"| model | parameters at N = {lengths[0]:,} | backend | {' | '.join(titles)} |",
        f"|---|---|---|{'---|' * len(lengths)}",
    ]
    for model in models:
        rows = [cells.get((model, length)) for length in lengths]
        known = [row for row in rows if row is not None]
        parameters = f"{rows[0].parameters:,}" if rows[0] is not None and rows[0].parameters else ""
        backend = next((row.backend for row in known if row.backend), "")
        entries = [
            "" if row is None else entry(row, cells.get((reference, length)))
            for row, length in zip(rows, lengths, strict=True)
        ]
        lines.append(f"| {label_of(suite, model)} | {parameters} | {backend} | {' | '.join(entries)} |")
    return "\n".join(lines)


def _speed(row: ResultRow, reference: ResultRow | None) -> str:
    if row.tokens_per_second is None:
        return row.status
    mark = "" if row.status == "ok" else f", {row.status}"
    return f"{row.tokens_per_second / 1000:,.2f}{_ratio(time_ratio(row, reference))}{mark}"


def _memory(row: ResultRow, reference: ResultRow | None) -> str:
    if row.peak_mib is None:
        return "" if row.status in ("ok", "interrupted") else row.status
    return f"{row.peak_mib:,.1f}{_ratio(memory_ratio(row, reference))}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f" ({value:.2f})"


def time_ratio(row: ResultRow | None, other: ResultRow | None) -> float | None:
    """The seconds of one row divided by the seconds of the other, if both are known."""
    if row is None or other is None or row.seconds_median is None or not other.seconds_median:
        return None
    return row.seconds_median / other.seconds_median


def memory_ratio(row: ResultRow | None, other: ResultRow | None) -> float | None:
    """The peak memory of one row divided by the peak memory of the other, if both are known."""
    if row is None or other is None or row.peak_mib is None or not other.peak_mib:
        return None
    return row.peak_mib / other.peak_mib


def _largest_spread(rows: Sequence[ResultRow]) -> float | None:
    spreads = [
        (row.seconds_max - row.seconds_min) / row.seconds_median
        for row in rows
        if row.seconds_median and row.seconds_max is not None and row.seconds_min is not None
    ]
    return max(spreads, default=None)


def _goal_lines(goal: Goal, cells: Cells, suite: BenchmarkSuite, mode: str) -> list[str]:
    if goal.mode != mode:
        return []
    lines = []
    for length in sorted({length for _, length in cells if length >= goal.min_length}):
        row, other = cells.get((goal.case, length)), cells.get((goal.other, length))
        measured = (
            ("time", time_ratio(row, other), goal.time_ratio),
            ("peak memory", memory_ratio(row, other), goal.memory_ratio),
        )
        for what, ratio, bound in measured:
            if ratio is not None and bound is not None:
                names = f"{label_of(suite, goal.case)} / {label_of(suite, goal.other)}"
                verdict = "reached" if ratio <= bound else "MISSED"
                lines.append(f"- N = {length:,}, {what} of {names}: {ratio:.3f}, goal at most {bound:g}: {verdict}")
    return lines
