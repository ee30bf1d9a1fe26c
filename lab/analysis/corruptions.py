"""The corruptions that a model is tested under: its task and data decide which, and each grows in severity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from modeling_sft.data.items import read_column
from modeling_sft.training.tasks import Task
from modeling_sft.training.tasks.graphs import GraphTask
from modeling_sft.training.tasks.point_clouds import PointCloudTask

from .changes import (
    TEXT_COLUMNS,
    Row,
    add_noise,
    blank_steps,
    cut_texts,
    drop_points,
    jitter_points,
    remove_edges,
    replace_characters,
)

SHORTEST_TEXT = 128

# Each symbol of an expression may change its value, and each line of an image may hold the path between two points.
_CHANGES_LABELS = {
    "listops": {"length", "replaced_characters"},
    "lra_listops": {"length", "replaced_characters"},
    "pathfinder32": {"missing_steps"},
    "pathx": {"missing_steps"},
}
_TEXT_TASKS = ("sequence-classification", "sequence-pair-classification")
_GRAPH_TASKS = ("graph-classification", "graph-multi-label-classification", "node-classification")


class Setting(NamedTuple):
    """One severity of a corruption.

    Attributes:
        severity: 0 for rows as they are; a larger number is a stronger corruption.
        name: what is done, in words.
        corrupt: function of rows and a seed that returns rows.
    """

    severity: float
    name: str
    corrupt: Callable[[Any, int], Any]


class CorruptedRows:
    """Rows of a data set, each changed at random.

    Args:
        rows: indexable rows; they are not changed themselves.
        change: function of a row and a generator that returns a new row.
        seed: row i is changed by a function of (seed, i).
    """

    def __init__(self, rows: Any, change: Callable[[Row, np.random.Generator], Row], seed: int) -> None:
        self.rows = rows
        self.change = change
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.change(dict(self.rows[index]), np.random.default_rng((self.seed, index)))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))


def corruptions_of(task: Task, dataset: str, rows: Any, processor: Any) -> dict[str, list[Setting]]:
    """The corruptions that leave the labels of a data set true, each from severity 0 upwards.

    Args:
        task: what the model was trained for.
        dataset: name of the data set.
        rows: the rows; texts among them are measured.
        processor: the model's processor, which may shorten rows for the model.

    Returns:
        `dict`: Lists of settings by corruption; empty if none fits the task and the data.
    """
    found: dict[str, list[Setting]] = {}
    if isinstance(task, PointCloudTask):
        found["rotation"] = [_rotation(task, number, name) for number, name in enumerate(task.rotations)]
        drop = partial(drop_points, num_points=processor.num_points)
        found["point_dropout"] = _fractions(drop, (0.25, 0.5, 0.75))
        found["jitter"] = _fractions(jitter_points, (0.01, 0.02, 0.05))
    elif isinstance(task, GraphTask) and task.name in _GRAPH_TASKS:
        found["removed_edges"] = _fractions(remove_edges, (0.05, 0.1, 0.2))
    elif task.name in _TEXT_TASKS and "text" in rows.column_names:
        lengths = _text_lengths(rows, processor.model_max_length)
        found["length"] = _settings(cut_texts, "length", [(length, f"first {length}") for length in lengths], "whole")
        found["replaced_characters"] = _fractions(replace_characters, (0.01, 0.05, 0.1))
    elif task.name in _TEXT_TASKS:
        found["noise"] = _fractions(add_noise, (0.05, 0.1, 0.2))
        found["missing_steps"] = _fractions(blank_steps, (0.1, 0.25, 0.5))
    unfit = _CHANGES_LABELS.get(dataset, set())
    return {name: settings for name, settings in found.items() if name not in unfit and len(settings) > 1}


def _unchanged(rows: Any, seed: int) -> Any:
    return rows


def _rotation(task: Task, number: int, name: str) -> Setting:
    rotate = partial(_rotated, task=task, rotation=name)
    return Setting(number, name, _unchanged if name == "none" else rotate)


def _rotated(rows: Any, seed: int, task: Task, rotation: str) -> Any:
    return task.rotate(rows, rotation, seed)


def _corrupted(rows: Any, seed: int, change: Callable[[Row, np.random.Generator], Row]) -> CorruptedRows:
    return CorruptedRows(rows, change, seed)


def _fractions(change: Callable[..., Row], fractions: Sequence[float]) -> list[Setting]:
    """Severities that are fractions."""
    return [
        Setting(0.0, "0 %", _unchanged),
        *(
            Setting(each, f"{100 * each:g} %", partial(_corrupted, change=partial(change, fraction=each)))
            for each in fractions
        ),
    ]


def _settings(
    change: Callable[..., Row], argument: str, values: Sequence[tuple[Any, str]], unchanged: str
) -> list[Setting]:
    """Severities that count 0, 1, 2, ..., with the unchanged rows as 0."""
    return [
        Setting(0, unchanged, _unchanged),
        *(
            Setting(number, name, partial(_corrupted, change=partial(change, **{argument: value})))
            for number, (value, name) in enumerate(values, start=1)
        ),
    ]


def _text_lengths(rows: Any, limit: int) -> list[int]:
    """128, 256, 512, ... below the longest text that the model sees, in descending order."""
    names = [name for name in TEXT_COLUMNS if name in rows.column_names]
    longest = min(limit, max(len(text) for name in names for text in read_column(rows, name)))
    lengths = []
    length = SHORTEST_TEXT
    while length < longest:
        lengths.append(length)
        length *= 2
    return lengths[::-1]
