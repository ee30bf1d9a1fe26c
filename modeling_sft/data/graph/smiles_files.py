"""The user's own molecules in tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import split_files
from .smiles_rows import ON_ERROR, SmilesTable, smiles_rows
from .smiles_splits import FRACTIONS, check_split_options, split_smiles_rows
from .smiles_tables import find_targets, read_smiles_table

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, one of:
  DATA_DIR/train.<kind>, and DATA_DIR/validation.<kind> and DATA_DIR/test.<kind> if there are some
  DATA_DIR, a file of any name that ends with .<kind>
where <kind> is csv, tsv (both may be followed by .gz) or parquet, with a column of SMILES and columns of targets."""

OPTIONS = ("smiles_column", "target_columns", "task", "split", "fractions", "seed", "on_error")
KINDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


def read_smiles_files(
    data_dir: str | os.PathLike[str] | None,
    smiles_column: str = "smiles",
    target_columns: str | Sequence[str] | None = None,
    task: str | None = None,
    split: str = "random",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    on_error: str = "raise",
) -> dict[str, Dataset]:
    """Reads tables with a column of SMILES and columns of targets.

    One class per molecule is a ClassLabel; numbers, or several labels, are (T,) float32, NaN where one is missing.

    Args:
        data_dir: the folder itself, or a file.
        smiles_column: name of the column of the SMILES.
        target_columns: of the targets, in the order of `y`; the only other column if None.
        task: "classification", "labels" or "regression"; if None, the values of the training data decide, see
            `find_targets`.
        split: "random" or "scaffold", how the molecules are divided if there is only one file.
        fractions: the shares of the training, validation and test split then; 0 for none.
        seed: of the random split.
        on_error: "raise" an error for a SMILES that RDKit cannot read and, with one class per molecule, for an absent
            class, or "skip" the row, with a warning that counts them.

    Raises:
        ValueError: for an absent folder, file or column, one that cannot be read, options out of range, and rows that
            do not fit; the message names the row, counted from 0.
    """
    if data_dir is None:
        raise ValueError(f"data_dir is needed for smiles_files; {LAYOUT}")
    check_split_options(split, fractions, seed)
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}; got {on_error!r}.")
    paths = _files(Path(data_dir))
    # Columns and classes of all files are those of the training data.
    table = read_smiles_table(paths["train"], smiles_column)
    targets = find_targets(paths["train"], table, smiles_column, target_columns, task)
    sources = {name: SmilesTable(path, smiles_column, targets, on_error) for name, path in paths.items()}
    rows = {name: smiles_rows(source, name) for name, source in sources.items()}
    if len(rows) > 1:
        return rows
    return split_smiles_rows(rows["train"], sources["train"], split, fractions, seed)


def smiles_target_names(target_columns: str | Sequence[str] | None = None, **options: Any) -> Sequence[str] | None:
    """The columns of the targets, where they are given."""
    return [target_columns] if isinstance(target_columns, str) else target_columns


def _files(source: Path) -> dict[str, Path]:
    if source.is_file():
        if not source.name.endswith(KINDS):
            raise ValueError(f"data_dir {str(source)!r} is a file of an unknown kind; {LAYOUT}")
        return {"train": source}
    return split_files(source, KINDS, LAYOUT)
