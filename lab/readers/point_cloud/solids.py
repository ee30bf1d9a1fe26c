"""Solids that shapes are assembled from: points on their surface, uniform by area, and tests of what is inside."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solid(ABC):
    """A solid about the origin, moved to `center` after a rotation (3, 3)."""

    center: Array = field(kw_only=True, default_factory=lambda: np.zeros(3))
    rotation: Array = field(kw_only=True, default_factory=lambda: np.eye(3))

    @property
    @abstractmethod
    def area(self) -> float:
        """The area of the surface."""

    @abstractmethod
    def sample_local(self, rng: np.random.RandomState, num_points: int) -> tuple[Array, Array]:
        """Points (n, 3), uniform by area, and their outward unit normals (n, 3), before rotation."""

    @abstractmethod
    def contains_local(self, points: Array) -> NDArray[np.bool_]:
        """Which of the points (n, 3), before rotation, lie inside and not on the surface."""

    def sample(self, rng: np.random.RandomState, num_points: int) -> tuple[Array, Array]:
        """Points (n, 3), uniform by area, and their outward unit normals (n, 3)."""
        points, normals = self.sample_local(rng, num_points)
        return points @ self.rotation.T + self.center, normals @ self.rotation.T

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Which of the points (n, 3) lie inside and not on the surface."""
        return self.contains_local((points - self.center) @ self.rotation)


@dataclass(frozen=True)
class Box(Solid):
    """A box with edges of the given lengths."""

    size: Sequence[float]

    @property
    def face_areas(self) -> Array:
        """Areas of the faces across x, y and z."""
        x, y, z = self.size
        return np.array([y * z, x * z, x * y])

    @property
    def area(self) -> float:
        return float(2 * self.face_areas.sum())

    def sample_local(self, rng: np.random.RandomState, num_points: int) -> tuple[Array, Array]:
        axis = rng.choice(3, size=num_points, p=self.face_areas / self.face_areas.sum())
        sign = rng.choice([-1.0, 1.0], size=num_points)
        half = np.asarray(self.size) / 2
        points = rng.uniform(-1, 1, size=(num_points, 3)) * half
        normals = np.zeros((num_points, 3))
        row = np.arange(num_points)
        points[row, axis] = sign * half[axis]
        normals[row, axis] = sign
        return points, normals

    def contains_local(self, points: Array) -> NDArray[np.bool_]:
        return np.all(np.abs(points) < np.asarray(self.size) / 2, axis=1)


@dataclass(frozen=True)
class Frustum(Solid):
    """A truncated cone along z with closed ends: a cylinder if the radii are equal, a cone if one of them is 0."""

    bottom_radius: float
    top_radius: float
    height: float

    @property
    def _slant(self) -> float:
        return math.hypot(self.height, self.bottom_radius - self.top_radius)

    @property
    def _areas(self) -> Array:
        """Areas of side, bottom and top."""
        side = (self.bottom_radius + self.top_radius) * self._slant
        return math.pi * np.array([side, self.bottom_radius**2, self.top_radius**2])

    @property
    def area(self) -> float:
        return float(self._areas.sum())

    def sample_local(self, rng: np.random.RandomState, num_points: int) -> tuple[Array, Array]:
        face = rng.choice(3, size=num_points, p=self._areas / self._areas.sum())
        share, angle = rng.uniform(size=num_points), rng.uniform(0, 2 * math.pi, size=num_points)
        # The circumference at a height is proportional to the radius, so its square is uniform over the side.
        side_radius = np.sqrt(self.bottom_radius**2 + share * (self.top_radius**2 - self.bottom_radius**2))
        taper = self.top_radius - self.bottom_radius
        height = share if taper == 0 else (side_radius - self.bottom_radius) / taper
        end_radius = np.sqrt(share) * np.where(face == 1, self.bottom_radius, self.top_radius)
        radius = np.where(face == 0, side_radius, end_radius)
        z = np.where(face == 0, height - 0.5, np.where(face == 1, -0.5, 0.5)) * self.height
        cos, sin = np.cos(angle), np.sin(angle)
        outward = np.where(face == 0, self.height / self._slant, 0.0)
        upward = np.where(face == 0, -taper / self._slant, np.where(face == 1, -1.0, 1.0))
        points = np.stack([radius * cos, radius * sin, z], axis=1)
        return points, np.stack([outward * cos, outward * sin, upward], axis=1)

    def contains_local(self, points: Array) -> NDArray[np.bool_]:
        share = points[:, 2] / self.height + 0.5
        radius = self.bottom_radius + share * (self.top_radius - self.bottom_radius)
        return (share > 0) & (share < 1) & (np.hypot(points[:, 0], points[:, 1]) < radius)


@dataclass(frozen=True)
class Sphere(Solid):
    """A ball."""

    radius: float

    @property
    def area(self) -> float:
        return 4 * math.pi * self.radius**2

    def sample_local(self, rng: np.random.RandomState, num_points: int) -> tuple[Array, Array]:
        normals = rng.normal(size=(num_points, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return self.radius * normals, normals

    def contains_local(self, points: Array) -> NDArray[np.bool_]:
        return np.linalg.norm(points, axis=1) < self.radius


@dataclass(frozen=True)
class Torus(Solid):
    """A torus about z."""

    ring_radius: float
    tube_radius: float

    @property
    def area(self) -> float:
        return 4 * math.pi**2 * self.ring_radius * self.tube_radius

    def sample_local(self, rng: np.random.RandomState, num_points: int) -> tuple[Array, Array]:
        around, tube = rng.uniform(0, 2 * math.pi, size=(2, num_points))
        # Mirror uniform angles with probability (1 - a cos) / 2: they then have the density 1 + a cos of the area.
        kept = 2 * rng.uniform(size=num_points) < 1 + self.tube_radius / self.ring_radius * np.cos(tube)
        tube = np.where(kept, tube, math.pi - tube)
        normals = np.stack([np.cos(tube) * np.cos(around), np.cos(tube) * np.sin(around), np.sin(tube)], axis=1)
        ring = np.stack([np.cos(around), np.sin(around), np.zeros(num_points)], axis=1)
        return self.ring_radius * ring + self.tube_radius * normals, normals

    def contains_local(self, points: Array) -> NDArray[np.bool_]:
        from_ring = np.hypot(points[:, 0], points[:, 1]) - self.ring_radius
        return np.hypot(from_ring, points[:, 2]) < self.tube_radius


def sample_union(
    solids: Sequence[Solid], rng: np.random.RandomState, num_points: int
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Draws points uniformly by area from the surfaces of several solids, leaving out what lies inside another solid.

    Returns:
        Points (n, 3), unit normals (n, 3), and the index of the solid that each point lies on (n,).
    """
    areas = np.array([solid.area for solid in solids])
    points, normals, owners = np.empty((0, 3)), np.empty((0, 3)), np.empty(0, dtype=np.int64)
    while len(points) < num_points:
        counts = rng.multinomial(3 * num_points // 2 + 1, areas / areas.sum())
        samples = [solid.sample(rng, count) for solid, count in zip(solids, counts)]
        new_points = np.concatenate([sample[0] for sample in samples])
        owner = np.repeat(np.arange(len(solids)), counts)
        visible = np.ones(len(new_points), dtype=bool)
        for index, solid in enumerate(solids):
            visible &= ~solid.contains(new_points) | (owner == index)
        order = rng.permutation(np.flatnonzero(visible))
        points = np.concatenate([points, new_points[order]])
        normals = np.concatenate([normals, np.concatenate([sample[1] for sample in samples])[order]])
        owners = np.concatenate([owners, owner[order]])
    return points[:num_points], normals[:num_points], owners[:num_points]
