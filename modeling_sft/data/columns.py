"""Columns of rows, read without the others."""

from collections.abc import Iterator
from typing import Any

ROWS_AT_ONCE = 256


def read_column(rows: Any, name: str, kind: str | None = None) -> Iterator[Any]:
    """The entries of a column, of a `datasets.Dataset` in the format `kind`.

    Raises:
        ValueError: for a row without it.
    """
    remedy = "; pass target=None to do without labels" if name == "label" else ""
    if not hasattr(rows, "select_columns"):
        for index, row in enumerate(rows):
            if name not in row:
                raise ValueError(f"Row {index} has no column {name!r}; its columns are {sorted(row)}{remedy}.")
            yield row[name]
        return
    if name not in rows.column_names:
        raise ValueError(f"rows has no column {name!r}; its columns are {rows.column_names}{remedy}.")
    # Many rows at once, of one column: rows one by one take far longer.
    column = rows.select_columns([name]).with_format(kind)
    for start in range(0, len(column), ROWS_AT_ONCE):
        yield from column[start : start + ROWS_AT_ONCE][name]
