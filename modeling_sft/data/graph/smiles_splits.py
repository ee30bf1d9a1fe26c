"""Random and scaffold splits of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...hub.values import require_integer
from ..files import SPLITS
from .smiles_rows import SmilesTable, scaffolds_of

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = ("random", "scaffold")
FRACTIONS = (0.8, 0.1, 0.1)


def check_split_options(split: Any, fractions: Any, seed: Any) -> None:
    """Checks options of a reader.

    Raises:
        ValueError: if one is out of range.
    """
    if split not in KINDS:
        raise ValueError(f"split must be one of {', '.join(KINDS)}; got {split!r}.")
    require_integer("seed", seed, 0, 2**32 - 1)
    is_number = [isinstance(one, (int, float)) and not isinstance(one, bool) for one in np.ravel(fractions).tolist()]
    if len(is_number) != 3 or not all(is_number) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "fractions must be three numbers from 0 on that add up to 1, the shares of the training, validation and "
            f"test split; got {fractions!r}."
        )
    if fractions[0] == 0:
        raise ValueError("fractions must begin with a number above 0, the share of the training split.")


def split_smiles_rows(
    rows: Dataset, source: SmilesTable, split: str, fractions: Sequence[float], seed: int
) -> dict[str, Dataset]:
    """Training, validation and test split; one of share 0 is left out.

    Args:
        rows: of `smiles_rows`.
        source: what they were read from.
        split: "random" or "scaffold", see `scaffold_indices`.
        fractions: the shares.
        seed: of the random split; no part of the other.

    Raises:
        ValueError: for an option out of range, or if a split is empty.
    """
    check_split_options(split, fractions, seed)
    if split == "random":
        order = np.random.RandomState(seed).permutation(len(rows))
        train_end, validation_end = (int(end) for end in _ends(len(rows), fractions))
        parts = order[:train_end], order[train_end:validation_end], order[validation_end:]
    else:
        parts = scaffold_indices(scaffolds_of(source), fractions)
    wanted = {name: part for name, part, share in zip(SPLITS, parts, fractions) if share > 0}
    for name, part in wanted.items():
        if len(part) == 0:
            raise ValueError(
                f"The {split} split of the {len(rows)} molecules of {source.path} leaves {name} empty: give more "
                "molecules, other fractions or files by split."
            )
    return {name: rows.select(np.sort(part)) for name, part in wanted.items()}


def scaffold_indices(
    scaffolds: Sequence[str], fractions: Sequence[float] = FRACTIONS
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """A split as in MoleculeNet (arXiv 1703.00564): molecules of the same scaffold stay together.

    The groups go, the largest first, to the training split as long as they fit into its share, then to the validation
    split, then to the test split.

    Args:
        scaffolds: of each row.
        fractions: shares of the three splits.

    Returns:
        Increasing row numbers of the training, validation and test split.
    """
    groups: dict[str, list[int]] = {}
    for row, scaffold in enumerate(scaffolds):
        groups.setdefault(scaffold, []).append(row)
    train_end, validation_end = _ends(len(scaffolds), fractions)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    # Among groups of one size, that which begins last comes first, as in DeepChem.
    for group in sorted(groups.values(), key=lambda rows: (len(rows), rows[0]), reverse=True):
        if len(parts[0]) + len(group) <= train_end:
            parts[0].extend(group)
        elif len(parts[0]) + len(parts[1]) + len(group) <= validation_end:
            parts[1].extend(group)
        else:
            parts[2].extend(group)
    train, validation, test = (np.sort(np.array(part, dtype=np.int64)) for part in parts)
    return train, validation, test


def _ends(num_rows: int, fractions: Sequence[float]) -> tuple[float, float]:
    """Where the training and the validation split end; sums of shares are off by rounding."""
    return round(fractions[0] * num_rows, 6), round((fractions[0] + fractions[1]) * num_rows, 6)
