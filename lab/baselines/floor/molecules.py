"""Counts of circular neighbourhoods in molecules, and RDKit's properties."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modeling_sft.graph.molecules import ATOM_FEATURE_SIZES, BOND_FEATURE_SIZES, BOND_TYPES
from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.values import require_integer
from modeling_sft.training.estimators import Estimator, Scores, TrainingData
from modeling_sft.training.recipe import Recipe
from modeling_sft.training.tasks import get_task

from .heads import fit_scores

CHOICES = (("forest", 2), ("forest", 3), ("boosting", 2))
"""Methods and radii of the neighbourhoods, in bonds, that are tried."""
RADII = (2, 3)
_ATOM_COLUMNS = {"number": 0, "charge": 3, "hydrogens": 4, "radicals": 5, "aromatic": 7}


@dataclass(frozen=True)
class FingerprintsConfig:
    """Settings of [`Fingerprints`].

    Args:
        num_bins: entries of the vector of counts; neighbourhoods are hashed into it.
        properties: add RDKit's properties of whole molecules (mass, Crippen's logP, surfaces, counts of rings, ...).
    """

    num_bins: int = 2048
    properties: bool = False

    def __post_init__(self) -> None:
        require_integer("`model.num_bins`", self.num_bins, 1)
        if type(self.properties) is not bool:
            raise TypeError(f"`model.properties` is {self.properties!r}: use true or false.")


class Fingerprints(Estimator):
    """Count fingerprints (ECFP, J. Chem. Inf. Model. 50, 742-754) under a forest or boosted trees.

    Validation chooses between the two, and the radius. RDKit reads the molecules from the rows' atoms and bonds, so
    they are those that models see, in every split, without their isotopes.
    """

    config_class = FingerprintsConfig
    target: ClassVar[str] = "y"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        name = recipe.dataset["name"]
        reader = get_task(recipe.task).readers.get(name)
        if reader is not None and not reader.is_molecular:
            raise ValueError(
                f"The baseline {recipe.baseline} reads molecules, and `dataset.name` {name} has none: use the "
                "baseline hashed_counts."
            )

    def choices(self) -> Sequence[dict[str, Any]]:
        return [{"method": method, "radius": radius} for method, radius in CHOICES]

    def features(self, rows: Any) -> dict[int, NDArray[np.float32]]:
        """For each radius counts and properties, `(n, F)` float32."""
        fingerprints = import_optional("rdkit.Chem.rdFingerprintGenerator", "graphs")
        describe = import_optional("rdkit.Chem.rdMolDescriptors", "graphs").Properties()
        num_bins = self.settings.num_bins
        generators = {radius: fingerprints.GetMorganGenerator(radius=radius, fpSize=num_bins) for radius in RADII}
        found: dict[int, list[NDArray[np.float32]]] = {radius: [] for radius in RADII}
        for row in rows:
            molecule = molecule_of(row)
            properties = describe.ComputeProperties(molecule) if self.settings.properties else ()
            for radius, generator in generators.items():
                counts = generator.GetCountFingerprintAsNumPy(molecule)
                found[radius].append(np.concatenate([counts, properties]).astype(np.float32))
        return {radius: np.stack(each) for radius, each in found.items()}

    def fit(self, choice: Mapping[str, Any], data: TrainingData) -> Scores:
        radius, method = choice["radius"], choice["method"]
        data = data._replace(features=data.features[radius])
        scores = fit_scores(method, self.recipe.task, data, self.recipe.seed)
        return lambda features: scores(features[radius])


def molecule_of(row: Mapping[str, Any]) -> Any:
    """The `rdkit.Chem.Mol` of a row with OGB's features, without stereo and isotopes.

    Args:
        row: `node_feat` (n, 9), `edge_index` (2, E) with each bond in both directions and `edge_attr` (E, 3), as
            [`smiles_to_graph`] gives them.

    Raises:
        ValueError: if the features are not of these widths.
    """
    chem = import_optional("rdkit.Chem", "graphs")
    atoms, bonds = np.asarray(row["node_feat"]), np.asarray(row["edge_attr"])
    for name, array, sizes in (("node_feat", atoms, ATOM_FEATURE_SIZES), ("edge_attr", bonds, BOND_FEATURE_SIZES)):
        if array.shape[1:] != (len(sizes),):
            raise ValueError(f"`{name}` has shape {array.shape}: molecules have {len(sizes)} columns, as OGB's.")
    molecule = chem.RWMol()
    unknown = ATOM_FEATURE_SIZES[0] - 1
    for features in atoms[:, list(_ATOM_COLUMNS.values())].tolist():
        number, charge, hydrogens, radicals, is_aromatic = features
        atom = chem.Atom(0 if number == unknown else number + 1)
        atom.SetFormalCharge(charge - 5)
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(hydrogens)
        atom.SetNumRadicalElectrons(radicals)
        atom.SetIsAromatic(bool(is_aromatic))
        molecule.AddAtom(atom)
    types = [*(getattr(chem.BondType, name) for name in BOND_TYPES), chem.BondType.DATIVE]
    for (first, second), kind in zip(np.asarray(row["edge_index"]).T.tolist(), bonds[:, 0].tolist()):
        if first < second:
            molecule.AddBond(first, second, types[kind])
            molecule.GetBondBetweenAtoms(first, second).SetIsAromatic(types[kind] == chem.BondType.AROMATIC)
    molecule.UpdatePropertyCache(strict=False)
    flags = chem.SanitizeFlags
    chem.SanitizeMol(
        molecule, flags.SANITIZE_SYMMRINGS | flags.SANITIZE_SETCONJUGATION | flags.SANITIZE_SETHYBRIDIZATION
    )
    return molecule
