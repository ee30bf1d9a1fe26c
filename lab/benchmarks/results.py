"""Results as rows of a CSV file that grows while the benchmark runs."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ResultRow:
    """One case at one length, in one mode and precision; numbers are absent unless the status is `"ok"`.

    Attributes:
        suite, model, length, batch_size, mode, dtype, device, threads, size: what was run.
        status: `"ok"`, `"out of memory"`, `"> 60 s"`, `"skipped: ..."`, `"interrupted"` or `"failed: ..."`.
        seconds_median, seconds_min, seconds_max: of one pass, over the rounds.
        rounds, repeats: measurements, and passes in each.
        tokens_per_second: batch_size * length / seconds_median.
        peak_mib: peak memory of one pass beyond model and inputs.
        parameters: number of weights.
        backend: the attention backend that ran, for SFT.
        hardware, versions, date, command: where and how.
    """

    suite: str
    model: str
    length: int
    batch_size: int
    mode: str
    dtype: str
    device: str
    threads: int
    size: str
    status: str
    seconds_median: float | None = None
    seconds_min: float | None = None
    seconds_max: float | None = None
    rounds: int | None = None
    repeats: int | None = None
    tokens_per_second: float | None = None
    peak_mib: float | None = None
    parameters: int | None = None
    backend: str = ""
    hardware: str = ""
    versions: str = ""
    date: str = ""
    command: str = ""

    @property
    def group(self) -> tuple[Any, ...]:
        """The values that the rows of one table share."""
        return (self.suite, self.mode, self.dtype, self.device, self.threads, self.size)

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies the measurement: a later row with the same key replaces an earlier one."""
        return (*self.group, self.model, self.length, self.batch_size)


_INTEGERS = {"length", "batch_size", "threads", "rounds", "repeats", "parameters"}
_FLOATS = {"seconds_median", "seconds_min", "seconds_max", "tokens_per_second", "peak_mib"}


class ResultsFile:
    """A CSV file of [`ResultRow`]s; each row reaches the disk as soon as it is written.

    Args:
        path: the file; its folder must exist.
        append: keep the rows that the file has, instead of starting anew.

    Raises:
        ValueError: the file to extend has other columns.
    """

    def __init__(self, path: Path, append: bool) -> None:
        self.path = path
        self.columns = [field.name for field in fields(ResultRow)]
        if append and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                if next(csv.reader(file), None) != self.columns:
                    raise ValueError(f"{path} has other columns: it cannot be extended. Choose another folder.")
        else:
            self._write(self.columns, "w")

    def add(self, row: ResultRow) -> None:
        """Write one row."""
        self._write([_text(value) for value in asdict(row).values()], "a")

    def rows(self) -> list[ResultRow]:
        """All rows; among rows with the same key, only the last."""
        with self.path.open(newline="", encoding="utf-8") as file:
            return latest(ResultRow(**_parsed(cells)) for cells in csv.DictReader(file))

    def _write(self, cells: list[str], mode: str) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(cells)


def latest(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """The last row of each key, in the order of first appearance."""
    return list({row.key: row for row in rows}.values())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parsed(cells: dict[str, str]) -> dict[str, Any]:
    def parse(name: str, text: str) -> Any:
        if name not in _INTEGERS | _FLOATS:
            return text
        return None if text == "" else int(text) if name in _INTEGERS else float(text)

    return {name: parse(name, text) for name, text in cells.items()}
