"""Seeded augmentation of point clouds: rotation, scale, jitter, translation and point dropout."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

RotationKind = Literal["none", "z", "so3"]


def random_rotation(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws a proper rotation matrix R (3, 3), float64; a row vector x is rotated by `x @ R.T`.

    Args:
        kind: "none" (the identity, nothing is drawn), "z" (a uniform angle about the z axis) or "so3" (uniform over
            all rotations: a normalised quaternion of four Gaussians; Shoemake, "Uniform random rotations", 1992).
        rng: the source of randomness.

    Raises:
        ValueError: if `kind` is none of the three.
    """
    if kind == "none":
        return np.eye(3)
    if kind == "z":
        angle = rng.uniform(0.0, 2.0 * math.pi)
        cosine, sine = math.cos(angle), math.sin(angle)
        return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    if kind == "so3":
        quaternion = rng.standard_normal(4)
        w, x, y, z = (quaternion / np.linalg.norm(quaternion)).tolist()
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
    raise ValueError(f"rotation must be one of {', '.join(get_args(RotationKind))}; got {kind!r}.")


class AugmentationDraw(NamedTuple):
    """One draw of a `PointCloudAugmentation` for a cloud of n points, m of which are kept."""

    rotation: NDArray[np.float64]
    """(3, 3) rotation matrix."""
    scale: float
    """Factor of the coordinates."""
    translation: NDArray[np.float64]
    """(3,) shift, added last."""
    kept: NDArray[np.int64]
    """(m,) indices of the points that survive point dropout, increasing."""
    jitter: NDArray[np.float64] | None
    """(m, 3) displacements of the kept points, or None."""


@dataclass(frozen=True)
class PointCloudAugmentation:
    """What a `SFTPointCloudProcessor` may change in a cloud during training.

    All lengths are in the units after the processor's centring and scaling, where the largest radius is 1.

    Args:
        rotation: "none", "z" (about the z axis) or "so3" (any rotation). Normals rotate with the points.
        scale: two positive numbers; one factor is drawn uniformly between them for the whole cloud.
        jitter: standard deviation of Gaussian noise added to each coordinate.
        translate: each coordinate of one common shift is uniform in [-translate, translate].
        point_dropout: the share of dropped points is uniform in [0, point_dropout], below 1; one point always stays.

    Raises:
        ValueError: for a value outside its range.
    """

    rotation: RotationKind = "none"
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    translate: float = 0.0
    point_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rotation not in get_args(RotationKind):
            raise ValueError(f"rotation must be one of {', '.join(get_args(RotationKind))}; got {self.rotation!r}.")
        bounds = self.scale
        if not (
            isinstance(bounds, (tuple, list))
            and len(bounds) == 2
            and all(_is_finite_number(bound) for bound in bounds)
            and 0 < bounds[0] <= bounds[1]
        ):
            raise ValueError(f"scale must be two positive numbers (low, high) with low <= high; got {bounds!r}.")
        # Recipes give lists, and a frozen dataclass with a list cannot be hashed or compared to its own default.
        object.__setattr__(self, "scale", (float(bounds[0]), float(bounds[1])))
        for name in ("jitter", "translate"):
            value = getattr(self, name)
            if not _is_finite_number(value) or value < 0:
                raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}.")
        if not _is_finite_number(self.point_dropout) or not 0 <= self.point_dropout < 1:
            raise ValueError(f"point_dropout must be in [0, 1); got {self.point_dropout!r}.")

    def draw(self, num_points: int, rng: np.random.Generator) -> AugmentationDraw:
        """Draws the numbers for one cloud of `num_points` points.

        The rotation is drawn first, so that the same `rng` state gives the same rotation whatever the other fields.
        """
        rotation = random_rotation(self.rotation, rng)
        scale = rng.uniform(*self.scale)
        translation = rng.uniform(-self.translate, self.translate, size=3)
        kept = np.arange(num_points)
        if self.point_dropout > 0:
            num_kept = max(1, num_points - int(rng.uniform(0.0, self.point_dropout) * num_points))
            kept = np.sort(rng.choice(num_points, size=num_kept, replace=False))
        jitter = rng.normal(0.0, self.jitter, size=(len(kept), 3)) if self.jitter > 0 else None
        return AugmentationDraw(rotation, scale, translation, kept, jitter)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
