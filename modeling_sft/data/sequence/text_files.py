"""The user's own labelled texts or pairs of texts in tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...hub.optional import import_optional
from ...hub.values import require_fraction
from ..files import bad_value, damaged, split_files
from ..splits import stratified_indices
from .table_labels import TASKS, check_one_shape, class_names, encode_labels, label_feature, values_of_task

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout:
  DATA_DIR/train.<kind>, and DATA_DIR/test.<kind> and DATA_DIR/validation.<kind> if there are some
where <kind> is parquet, csv, tsv, json or jsonl."""

KINDS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json"}


def read_text_files(
    data_dir: str | os.PathLike[str] | None,
    text_column: str = "text",
    label_column: str | None = "label",
    pair_column: str | None = None,
    test_fraction: float = 0.1,
    task: str | None = None,
) -> dict[str, Dataset]:
    """Reads tables with a column of texts, and of labels if there are some.

    Labels that are integers or strings are classes, named by them and sorted; floats are for regression; lists of
    numbers are several labels at once.

    Args:
        data_dir: the folder itself.
        text_column: name of the column of the texts.
        label_column: of the labels; None for texts alone.
        pair_column: of the second texts, for pairs.
        test_fraction: share of the test split where there is no file for it; stratified by class, and always the same
            for the same file.
        task: "classification" to read whole floats as classes, "regression" to read integers as numbers; None to see
            it from the values.

    Raises:
        ValueError: for an absent folder, file or column, one that cannot be read, a row without text or label, labels
            of different kinds and, in other splits, of other classes than in the training data.
    """
    require_fraction("test_fraction", test_fraction)
    if task not in (None, *TASKS):
        raise ValueError(f"task must be one of {', '.join(TASKS)}, or None to see it from the values; got {task!r}.")
    if data_dir is None:
        raise ValueError(f"data_dir is needed for text_files; {LAYOUT}")
    folder = Path(data_dir)
    if not folder.is_dir():
        raise ValueError(f"data_dir {str(folder)!r} is no folder; {LAYOUT}")
    columns = {"text": text_column, "text_pair": pair_column, "label": label_column}
    wanted = {name: column for name, column in columns.items() if column is not None}
    if len(set(wanted.values())) < len(wanted):
        raise ValueError(f"text_column, pair_column and label_column must differ; got {', '.join(wanted.values())}.")

    paths = split_files(folder, KINDS, LAYOUT)
    tables = {path: _read_table(path, split, wanted) for split, path in paths.items()}
    rows = {path.stem: table for path, table in _with_labels(tables, wanted, task).items()}
    if "test" in rows:
        return rows
    train, test = _held_out(rows["train"], test_fraction)
    return {**rows, "train": rows["train"].select(train), "test": rows["train"].select(test)}


def _read_table(path: Path, split: str, wanted: Mapping[str, str]) -> Dataset:
    """The wanted columns, with their names in the file; texts are checked."""
    text_columns = [wanted[name] for name in ("text", "text_pair") if name in wanted]
    table = _load(path, split, text_columns)
    for column in wanted.values():
        if column not in table.column_names:
            raise damaged(path, f"it has no column {column!r} but {', '.join(table.column_names)}")
    if len(table) == 0:
        raise damaged(path, "it has no rows")
    for column in text_columns:
        check_texts(path, column, table[column])
    return table.select_columns(list(wanted.values()))


def _with_labels(tables: Mapping[Path, Dataset], wanted: Mapping[str, str], task: str | None) -> dict[Path, Dataset]:
    """The tables with columns of the common names; classes are those of the first, the training data."""
    texts = {column: name for name, column in wanted.items() if name != "label"}
    if "label" not in wanted:
        return {path: table.rename_columns(texts) for path, table in tables.items()}
    column = wanted["label"]
    rows = {}
    first: Any = None
    for number, (path, table) in enumerate(tables.items()):
        values = values_of_task(path, column, table[column][:], task)
        if number == 0:
            names = class_names(path, column, values)
        labels = encode_labels(path, column, values, names)
        first = labels[0] if first is None else first
        check_one_shape(path, column, labels, first)
        feature = label_feature(labels, names)
        rows[path] = table.remove_columns(column).rename_columns(texts).add_column("label", labels, feature=feature)
    return rows


def _held_out(rows: Dataset, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers that stay and that are held out."""
    if len(rows) == 1:
        raise ValueError("The file train has a single row, so that none is left to test: add rows or a file test.")
    is_class = "label" in rows.column_names and hasattr(rows.features["label"], "names")
    return stratified_indices(rows["label"][:] if is_class else np.zeros(len(rows), dtype=int), fraction, seed=0)


def _load(path: Path, split: str, text_columns: Sequence[str]) -> Dataset:
    datasets = import_optional("datasets", "sequences")
    options: dict[str, Any] = {}
    if KINDS[path.suffix] == "csv":
        # Texts such as 0110 or NA stay as they are; only nothing at all is a missing value.
        options = {"converters": dict.fromkeys(text_columns, str), "keep_default_na": False, "na_values": [""]}
        options["sep"] = "\t" if path.suffix == ".tsv" else ","
    try:
        return datasets.load_dataset(KINDS[path.suffix], data_files={split: str(path)}, split=split, **options)
    # Damaged files raise the errors of pandas, Arrow and `datasets`.
    except Exception as error:
        cause = error.__cause__ or error
        raise damaged(path, f"it cannot be read ({type(cause).__name__}: {cause})") from error


def check_texts(path: Path, name: str, texts: Sequence[Any]) -> None:
    """Checks that every row has a text.

    Raises:
        ValueError: if one is empty or no string; the message names the row, counted from 0.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise bad_value(path, name, row, text, "not a text")
