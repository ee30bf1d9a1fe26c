"""Histograms of pairs of points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.values import require_integer
from modeling_sft.training.estimators import Estimator, Scores, TrainingData

from .heads import class_scores


@dataclass(frozen=True)
class ShapeHistogramsConfig:
    """Settings of [`ShapeHistograms`].

    Args:
        num_pairs: pairs that are drawn of each cloud.
        coordinates: add the share of points in each of 8 x 8 x 8 cells, for clouds that are aligned; the answer then
            depends on the pose.
    """

    num_pairs: int = 6000
    coordinates: bool = False

    def __post_init__(self) -> None:
        require_integer("`model.num_pairs`", self.num_pairs, 1)
        if type(self.coordinates) is not bool:
            raise TypeError(f"`model.coordinates` is {self.coordinates!r}: use true or false.")


class ShapeHistograms(Estimator):
    """Histograms of random pairs of points under extremely randomised trees (Machine Learning 63, 3-42).

    Of pairs: the distance (ACM TOG 21, 807-832), jointly with the angles between normals and line, without their signs
    (as point pair features, CVPR 2010, 998-1005), and with both distances from the centre. Of points: that distance,
    its angle with the normal, and the spread along the main axes. Clouds are centred and divided by the root of their
    mean squared radius, and all their points are read. Rotations change nothing but rounding.
    """

    config_class = ShapeHistogramsConfig
    target: ClassVar[str] = "label"

    def choices(self) -> Sequence[dict[str, Any]]:
        return [{"max_features": share} for share in (0.1, 0.3)]

    def features(self, rows: Any) -> NDArray[np.float32]:
        """Histograms `(n, F)` float32."""
        rng = np.random.default_rng(self.recipe.seed)
        # The same draw for every cloud, so that features do not depend on the other rows.
        pairs = rng.random((2, self.settings.num_pairs))
        found = []
        for number, row in enumerate(rows):
            if row.get("normals") is None:
                raise ValueError(f"Row {number} has no `normals`: the baseline {self.recipe.baseline} needs them.")
            points, normals = (np.asarray(row[name], dtype=np.float64) for name in ("points", "normals"))
            points = points - points.mean(axis=0)
            points /= max(np.sqrt((points**2).sum(axis=1).mean()), 1e-12)
            parts = [*shape_histograms(points, normals, (pairs * len(points)).astype(int))]
            if self.settings.coordinates:
                cells = np.histogramdd(np.clip(points, -1.99, 1.99), 8, ((-2, 2),) * 3)[0]
                parts.append(cells.ravel() / len(points))
            found.append(np.concatenate(parts).astype(np.float32))
        return np.stack(found)

    def fit(self, choice: Mapping[str, Any], data: TrainingData) -> Scores:
        ensemble = import_optional("sklearn.ensemble", "pointclouds")
        model = ensemble.ExtraTreesClassifier(300, n_jobs=1, random_state=self.recipe.seed, **choice)
        model.fit(data.features, data.targets)
        return lambda features: class_scores(model, features, data.num_labels)


def shape_histograms(points: NDArray[Any], normals: NDArray[Any], pairs: NDArray[Any]) -> list[NDArray[Any]]:
    """Rotation-invariant histograms of one cloud, as vectors.

    Args:
        points: `(n, 3)`, centred and scaled.
        normals: `(n, 3)`, of length 1; their signs do not count.
        pairs: `(2, m)` int, indices of points; pairs of a point with itself are left out.
    """
    first, second = pairs[:, pairs[0] != pairs[1]]
    lines = points[second] - points[first]
    lengths = np.linalg.norm(lines, axis=1)
    lines = lines / np.maximum(lengths, 1e-9)[:, None]
    angles = np.abs([(normals[each] * lines).sum(axis=1) for each in (first, second)])
    between = np.abs((normals[first] * normals[second]).sum(axis=1))
    radii = np.linalg.norm(points, axis=1)
    tilts = np.abs((normals * points).sum(axis=1)) / np.maximum(radii, 1e-9)
    ends = np.stack([radii[first], radii[second]])
    joint = np.stack([lengths, angles.min(axis=0), angles.max(axis=0), between], axis=1)
    placed = np.stack([lengths, ends.min(axis=0), ends.max(axis=0)], axis=1)
    of_pairs = [
        np.histogram(lengths, 32, (0, 4))[0],
        np.histogramdd(joint, (8, 3, 3, 3), ((0, 3.2), (0, 1), (0, 1), (0, 1)))[0].ravel(),
        np.histogramdd(placed, (8, 6, 6), ((0, 3.5), (0, 2), (0, 2.5)))[0].ravel(),
    ]
    of_points = [np.histogram(radii, 24, (0, 2.5))[0], np.histogram(tilts, 12, (0, 1))[0]]
    spread = np.linalg.eigvalsh(points.T @ points / len(points))
    return [
        *(counts / max(len(first), 1) for counts in of_pairs),
        *(counts / len(points) for counts in of_points),
        spread / max(spread.sum(), 1e-12),
    ]
