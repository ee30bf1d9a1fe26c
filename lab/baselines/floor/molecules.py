"""Counts of circular neighbourhoods in molecules, and RDKit's properties."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modeling_sft.graph.molecules import descriptor_names, graph_to_molecule, molecular_descriptors
from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.values import require_integer
from modeling_sft.training.estimators import Estimator, Scores, TrainingData
from modeling_sft.training.recipe import Recipe
from modeling_sft.training.tasks import get_task

from .heads import fit_scores

CHOICES = (("forest", 2), ("forest", 3), ("boosting", 2))
"""Methods and radii of the neighbourhoods, in bonds, that are tried."""
RADII = (2, 3)


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
        names = descriptor_names() if self.settings.properties else ()
        num_bins = self.settings.num_bins
        generators = {radius: fingerprints.GetMorganGenerator(radius=radius, fpSize=num_bins) for radius in RADII}
        found: dict[int, list[NDArray[np.float32]]] = {radius: [] for radius in RADII}
        for row in rows:
            molecule = graph_to_molecule(row)
            properties = molecular_descriptors(molecule, names)
            for radius, generator in generators.items():
                counts = generator.GetCountFingerprintAsNumPy(molecule)
                found[radius].append(np.concatenate([counts, properties]).astype(np.float32))
        return {radius: np.stack(each) for radius, each in found.items()}

    def fit(self, choice: Mapping[str, Any], data: TrainingData) -> Scores:
        radius, method = choice["radius"], choice["method"]
        data = data._replace(features=data.features[radius])
        scores = fit_scores(method, self.recipe.task, data, self.recipe.seed)
        return lambda features: scores(features[radius])
