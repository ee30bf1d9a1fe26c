"""Tables of SMILES and targets, and which kind of targets they hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...hub.optional import import_optional
from ..files import bad_value, damaged, few

MISSING = ("", "NA", "N/A", "NaN", "nan", "None", "null")
"""How a missing target is written in csv and tsv files."""
TASKS = ("classification", "labels", "regression")


class Targets(NamedTuple):
    """The targets of a data set."""

    columns: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    """Of one class per molecule; None for numbers, which may be several labels of 0 and 1."""


def read_smiles_table(path: Path, smiles_column: str) -> Any:
    """A csv, tsv (both may be compressed) or parquet file as `pandas.DataFrame`, integers apart from floats.

    Raises:
        ValueError: for a file that cannot be read, is empty or lacks the column.
    """
    pandas = import_optional("pandas", "graphs")
    try:
        if path.suffix == ".parquet":
            table = pandas.read_parquet(path, dtype_backend="numpy_nullable")
        else:
            separator = "\t" if ".tsv" in path.suffixes else ","
            names = pandas.read_csv(path, sep=separator, nrows=0).columns
            table = pandas.read_csv(
                path,
                sep=separator,
                keep_default_na=False,
                # A SMILES may be written like a missing value, such as NA.
                na_values={name: MISSING for name in names if name != smiles_column},
                dtype={smiles_column: "string"},
                dtype_backend="numpy_nullable",
            )
    # Damaged files raise the errors of pandas, Arrow and the decompression.
    except Exception as error:
        raise damaged(path, f"it cannot be read ({type(error).__name__}: {error})") from error
    if smiles_column not in table.columns:
        raise damaged(
            path,
            f"it has no column {smiles_column!r} but {few(table.columns)}; name that of the SMILES as smiles_column",
        )
    if len(table) == 0:
        raise damaged(path, "it has no rows")
    return table.reset_index(drop=True)


def find_targets(
    path: Path, table: Any, smiles_column: str, target_columns: str | Sequence[str] | None, task: str | None
) -> Targets:
    """Which columns are targets, and whether they are classes.

    Args:
        path: the file, for messages.
        table: of `read_smiles_table`.
        smiles_column: its column of SMILES.
        target_columns: their names; None for the only other column.
        task: "classification", "labels" (of 0 and 1), "regression" or None, to see it from the values. One column of
            text, of truth values or of the integers 0 and 1 is one class per molecule, and floats are numbers; other
            integers may be either, so that the task must be said. Several columns are numbers: labels of 0 and 1, or
            targets of regression. "labels" makes a label of a single column, too.

    Raises:
        ValueError: for columns that are absent or do not fit the task, and for integers without one.
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, or None to see it from the values; got {task!r}.")
    others = [str(name) for name in table.columns if name != smiles_column]
    if target_columns is None:
        if len(others) != 1:
            found = f"columns {few(others)}" if others else "no column"
            raise ValueError(f"{path} has {found} beside {smiles_column!r}: name the targets as target_columns.")
        target_columns = others
    columns = (target_columns,) if isinstance(target_columns, str) else tuple(target_columns)
    if not columns or len(set(columns)) < len(columns):
        raise ValueError(f"target_columns must be names, each once; got {list(columns)}.")
    for name in columns:
        if name not in others:
            raise ValueError(f"target_columns has {name!r}, but {path} has {few(others) or 'no column of targets'}.")
    if len(columns) > 1 or task == "labels":
        values = target_numbers(path, table, columns)
        if task in ("classification", "labels"):
            _check_labels(path, columns, values)
        return Targets(columns)
    kind = task or _kind(path, columns[0], table[columns[0]])
    if kind == "regression":
        target_numbers(path, table, columns)
        return Targets(columns)
    return Targets(columns, _class_names(path, columns[0], table[columns[0]]))


def target_numbers(path: Path, table: Any, columns: Sequence[str]) -> NDArray[np.float32]:
    """(rows, targets) float32, NaN where one is missing.

    Raises:
        ValueError: for an absent column, or a value that is no finite number.
    """
    pandas = import_optional("pandas", "graphs")
    numbers = []
    for name in columns:
        if name not in table.columns:
            raise damaged(path, f"it has no column {name!r} but {few(table.columns)}")
        column = (
            pandas.to_numeric(table[name], errors="coerce").astype("Float64").to_numpy(np.float64, na_value=np.nan)
        )
        # Beyond float32 as well as written as such.
        with np.errstate(over="ignore"):
            narrow = column.astype(np.float32)
        wrong = (np.isnan(column) & table[name].notna().to_numpy(bool)) | np.isinf(narrow)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise bad_value(path, name, row, table[name].iloc[row], "no finite number")
        numbers.append(narrow)
    return np.stack(numbers, axis=1)


def class_ids(path: Path, table: Any, targets: Targets) -> NDArray[np.int64]:
    """(rows,) class ids, -1 where there is none.

    Raises:
        ValueError: for an absent column, or a value that is no class of the training data.
    """
    name = targets.columns[0]
    if name not in table.columns:
        raise damaged(path, f"it has no column {name!r} but {few(table.columns)}")
    numbers = {known: number for number, known in enumerate(targets.class_names or ())}
    ids = np.full(len(table), -1, dtype=np.int64)
    for row, value in enumerate(table[name]):
        written = _class_name(value)
        if written is None:
            continue
        if written not in numbers:
            known = f"none of the classes of the training data ({few(numbers)})"
            raise bad_value(path, name, row, value, known)
        ids[row] = numbers[written]
    return ids


def _kind(path: Path, name: str, values: Any) -> str:
    types = import_optional("pandas.api.types", "graphs")
    known = values.dropna()
    if types.is_bool_dtype(values):
        return "classification"
    if types.is_integer_dtype(values):
        if known.isin((0, 1)).all():
            return "classification"
        raise ValueError(
            f"Column {name!r} of {path} holds integers from {known.min()} to {known.max()}, which may be classes or "
            'numbers: set task to "classification" or "regression".'
        )
    if types.is_float_dtype(values):
        return "regression"
    # A slip in a column of numbers makes pandas read all of it as text.
    is_number = import_optional("pandas", "graphs").to_numeric(known, errors="coerce").notna().to_numpy(bool)
    if is_number.any():
        row = int(known.index[int(np.argmin(is_number))])
        raise bad_value(path, name, row, values.loc[row], "no number as in other rows; correct it, or set task")
    if len(known) > 2 and known.nunique() == len(known):
        raise ValueError(
            f"Column {name!r} of {path} holds another text in each row, so that it cannot be the class: name the "
            "targets as target_columns."
        )
    return "classification"


def _class_names(path: Path, name: str, values: Any) -> tuple[str, ...]:
    """Sorted names, integers in the order of numbers."""
    types = import_optional("pandas.api.types", "graphs")
    known = values.dropna()
    if types.is_float_dtype(values):
        broken = (known % 1 != 0).to_numpy(bool)
        if broken.any():
            value = known.iloc[int(np.argmax(broken))]
            raise bad_value(path, name, int(known.index[int(np.argmax(broken))]), value, "no class")
    if len(known) == 0:
        raise damaged(path, f"column {name!r} has no classes")
    different = known.astype("int64").unique() if types.is_float_dtype(values) else known.unique()
    return tuple(str(value) for value in sorted(different))


def _class_name(value: Any) -> str | None:
    """The name of the class that a value stands for, None for a missing one; 1.0 is the class 1."""
    if value is import_optional("pandas", "graphs").NA:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check_labels(path: Path, columns: Sequence[str], values: NDArray[np.float32]) -> None:
    for name, column in zip(columns, values.T):
        wrong = ~(np.isnan(column) | np.isin(column, (0, 1)))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise bad_value(path, name, row, float(column[row]), "not 0, 1 or missing, as a label")
