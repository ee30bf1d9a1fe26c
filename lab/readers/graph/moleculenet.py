"""Sets of MoleculeNet: molecules as SMILES."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from modeling_sft.data.files import dataset_folder, existing_file
from modeling_sft.data.graph.smiles_rows import SmilesTable, smiles_rows
from modeling_sft.data.graph.smiles_splits import FRACTIONS, split_smiles_rows
from modeling_sft.data.graph.smiles_tables import Targets

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, one of:
  DATA_DIR/moleculenet/{name}.parquet with smiles and {targets}
  DATA_DIR/moleculenet/{csv} of https://moleculenet.org/datasets-1"""

OPTIONS = ("split", "seed")

TOX21_TARGETS = (
    "NR-AR",
    "NR-AR-LBD",
    "NR-AhR",
    "NR-Aromatase",
    "NR-ER",
    "NR-ER-LBD",
    "NR-PPAR-gamma",
    "SR-ARE",
    "SR-ATAD5",
    "SR-HSE",
    "SR-MMP",
    "SR-p53",
)


class MoleculeSet(NamedTuple):
    """The names that a set has in its files."""

    csv: tuple[str, ...]
    """The official file, in its forms."""
    csv_targets: tuple[str, ...]
    parquet_targets: tuple[str, ...]


SETS = {
    "esol": MoleculeSet(("delaney-processed.csv",), ("measured log solubility in mols per litre",), ("y",)),
    "hiv": MoleculeSet(("HIV.csv",), ("HIV_active",), ("y",)),
    "tox21": MoleculeSet(("tox21.csv", "tox21.csv.gz"), TOX21_TARGETS, TOX21_TARGETS),
}


def moleculenet_reader(name: str) -> Callable[..., dict[str, Dataset]]:
    """The reader of one of `SETS`."""

    def read(data_dir: str | os.PathLike[str] | None, split: str = "scaffold", seed: int = 0) -> dict[str, Dataset]:
        """Reads the molecules, split 80/10/10.

        Molecules that RDKit cannot read are left out, with a warning; repeated molecules stay.

        Args:
            data_dir: holds the folder `moleculenet`.
            split: "scaffold" or "random".
            seed: seed of the random split.

        Raises:
            ValueError: for absent and damaged files, and options out of range.
        """
        path, targets = _source(name, data_dir)
        source = SmilesTable(path, "smiles", Targets(tuple(targets)), on_error="skip")
        return split_smiles_rows(smiles_rows(source, name), source, split, FRACTIONS, seed)

    return read


def tox21_target_names(**options: Any) -> tuple[str, ...]:
    """The assays, in the order of the targets."""
    return TOX21_TARGETS


def _source(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Path, Sequence[str]]:
    names = SETS[name]
    layout = LAYOUT.format(name=name, csv=names.csv[0], targets=", ".join(names.parquet_targets))
    if data_dir is None:
        raise ValueError(f"data_dir is needed for {name}; {layout}")
    folder = dataset_folder("moleculenet", data_dir, layout)
    for csv in names.csv:
        if (folder / csv).is_file():
            return folder / csv, names.csv_targets
    return existing_file(folder / f"{name}.parquet", layout), names.parquet_targets
