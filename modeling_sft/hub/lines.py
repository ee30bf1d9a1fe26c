"""Texts and SMILES of files: one per line, or a column of a table."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

TABLES = {".csv": ",", ".tsv": "\t"}
"""The suffixes of tables, and what separates their columns."""
SUFFIXES = (".txt", ".smi", *TABLES)


def read_entries(path: str | os.PathLike[str], column: str) -> list[str]:
    """The entries of a file, in order; blank ones are left out.

    Args:
        path: `.txt` with an entry per line, `.smi` with a SMILES at the start of each line, or `.csv` or `.tsv` whose
            first line names the columns; in UTF-8.
        column: of a table.

    Raises:
        ValueError: another suffix, another encoding, a damaged table, or a table without the column.
        OSError: a file that is absent or cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"`{os.fspath(path)}` is no file of lines: use one of {', '.join(SUFFIXES)}.")
    try:
        with open(path, newline="" if suffix in TABLES else None, encoding="utf-8-sig") as file:
            if suffix not in TABLES:
                return entries_of_lines(file, first_word=suffix == ".smi")
            reader = csv.DictReader(file, delimiter=TABLES[suffix])
            names = list(reader.fieldnames or ())
            rows = [row.get(column) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"`{os.fspath(path)}` cannot be read as {suffix} in UTF-8: {error}.") from error
    if column not in names:
        raise ValueError(f"`{os.fspath(path)}` has no column {column!r}: name one of {', '.join(names)} by `column`.")
    return entries_of_lines(value for value in rows if value)


def entries_of_lines(lines: Iterable[str], first_word: bool = False) -> list[str]:
    """Lines without blank ones and surrounding space, or the first word of each."""
    stripped = [line.strip() for line in lines if line.strip()]
    return [line.split()[0] for line in stripped] if first_word else stripped
