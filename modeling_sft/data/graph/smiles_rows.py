"""Tables of SMILES as rows of graphs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...graph.molecules import ATOM_FEATURE_SIZES, BOND_FEATURE_SIZES, molecule_to_graph, murcko_scaffold, parse_smiles
from ...hub.optional import import_optional
from ..cache import cached_rows
from ..files import bad_value, damaged
from .rows import graph_features, target_feature
from .smiles_tables import Targets, class_ids, read_smiles_table, target_numbers

if TYPE_CHECKING:
    from datasets import Dataset

ON_ERROR = ("raise", "skip")
NUM_NAMED_ROWS = 10


class SmilesTable(NamedTuple):
    """A file, and what is read of it."""

    path: Path
    smiles_column: str
    targets: Targets
    on_error: str
    """Whether to "raise" an error for unreadable SMILES and absent classes, or to "skip" their rows."""


def smiles_rows(source: SmilesTable, split: str) -> Dataset:
    """The molecules in their order; a warning counts those that are skipped.

    Raises:
        ValueError: for a damaged file, if no row is left and, unless they are skipped, for SMILES that RDKit cannot
            read and molecules without class.
    """
    datasets = import_optional("datasets", "graphs")
    names = source.targets.class_names
    y = target_feature(len(source.targets.columns)) if names is None else datasets.ClassLabel(names=list(names))
    features = graph_features(y, (len(ATOM_FEATURE_SIZES), "int64"), (len(BOND_FEATURE_SIZES), "int64"))
    rows = cached_rows(_generate, split, features, [source.path], source=source).with_format("numpy")
    if source.on_error == "skip":
        num_rows = len(read_smiles_table(source.path, source.smiles_column))
        if num_rows > len(rows):
            left_out = f"{num_rows - len(rows)} of {num_rows} rows of {source.path}"
            warnings.warn(f"{left_out} cannot be read and are left out.", stacklevel=2)
    return rows


def scaffolds_of(source: SmilesTable) -> list[str]:
    """The Bemis-Murcko scaffold of each row of `smiles_rows`."""
    datasets = import_optional("datasets", "graphs")
    features = datasets.Features({"scaffold": datasets.Value("string")})
    rows = cached_rows(_generate_scaffolds, "scaffolds", features, [source.path], source=source)
    return list(rows["scaffold"])


def _generate(files: Sequence[Path], source: SmilesTable) -> Iterator[dict[str, Any]]:
    for molecule, y in _molecules(source):
        yield {**molecule_to_graph(molecule), "y": y}


def _generate_scaffolds(files: Sequence[Path], source: SmilesTable) -> Iterator[dict[str, Any]]:
    for molecule, _ in _molecules(source):
        yield {"scaffold": murcko_scaffold(molecule)}


def _molecules(source: SmilesTable) -> Iterator[tuple[Any, Any]]:
    path, smiles_column, targets, on_error = source
    table = read_smiles_table(path, smiles_column)
    is_class = targets.class_names is not None
    labels = class_ids(path, table, targets) if is_class else target_numbers(path, table, targets.columns)
    smiles = list(table[smiles_column])
    is_empty = True
    for row, (written, y) in enumerate(zip(smiles, labels)):
        molecule = parse_smiles(written)
        has_label = not is_class or y >= 0
        if molecule is not None and has_label:
            is_empty = False
            yield molecule, y
        elif on_error == "raise":
            if molecule is None:
                raise _unreadable(path, smiles_column, smiles, row)
            remedy = 'no class: fill it in, or leave such rows out by on_error="skip"'
            raise bad_value(path, targets.columns[0], row, None, remedy)
    if is_empty:
        raise damaged(path, f"no row has a SMILES in column {smiles_column!r} that RDKit can read, and a target")


def _unreadable(path: Path, column: str, smiles: Sequence[Any], row: int) -> ValueError:
    others = [number for number in range(row + 1, len(smiles)) if parse_smiles(smiles[number]) is None]
    more = ""
    if others:
        numbers = ", ".join(map(str, others[:NUM_NAMED_ROWS])) + (", ..." if len(others) > NUM_NAMED_ROWS else "")
        more = f", and so for {len(others)} more rows ({numbers})"
    return ValueError(
        f"Column {column!r} of row {row} (counted from 0) of {path} is {smiles[row]!r}, which RDKit cannot read as a "
        f'SMILES{more}: correct it, or leave such rows out by on_error="skip".'
    )
