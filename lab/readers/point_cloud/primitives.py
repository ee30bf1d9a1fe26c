"""Synthetic shapes of boxes, cylinders, cones, spheres and tori, with exact part labels; they need no files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from modeling_sft.data.point_cloud.rows import point_cloud_rows
from modeling_sft.hub.values import require_integer

from .solids import Box, Frustum, Solid, Sphere, Torus, sample_union

if TYPE_CHECKING:
    from datasets import Dataset

Part = tuple[str, Solid]

NUM_POINTS = 1024
JITTER = 0.01
SEED = 2024

ALONG_X = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Rotation that turns z into x."""
ACROSS_Y = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Rotation that turns z into -y, so that a ring about z stands upright in the plane of x and z."""

# Parts that touch overlap by this length, so that no face between them stays visible.
OVERLAP = 0.02


def read_primitives(
    data_dir: str | os.PathLike[str] | None = None, num_train: int = 1200, num_test: int = 300
) -> dict[str, Dataset]:
    """Six categories in turn, upright along z, of random proportions and counts; 1024 points and normals each.

    Points are drawn uniformly by area from the outside, scaled to the unit ball about their mean, and jittered by
    normal noise of deviation 0.01 in each coordinate; normals are computed before the jitter. Row i does not depend on
    the number of rows.

    Raises:
        ValueError: if a number of rows is not positive.
    """
    require_integer("num_train", num_train, 1)
    require_integer("num_test", num_test, 1)
    part_names = [f"{category}/{part}" for category, (_, parts) in CATEGORIES.items() for part in parts]
    return {
        split: _rows(number, count, part_names)
        for number, (split, count) in enumerate((("train", num_train), ("test", num_test)))
    }


def _rows(split: int, count: int, part_names: list[str]) -> Dataset:
    categories = list(CATEGORIES)
    columns: dict[str, list[Any]] = {"points": [], "normals": [], "label": [], "point_labels": []}
    for index in range(count):
        # Use RandomState instead of Generator: its numbers are the same in every version of NumPy.
        rng = np.random.RandomState([SEED, split, index])
        label = index % len(categories)
        parts = assemble(categories[label], rng)
        points, normals, owners = sample_union([solid for _, solid in parts], rng, NUM_POINTS)
        points -= points.mean(axis=0)
        points /= np.linalg.norm(points, axis=1).max()
        points += rng.normal(scale=JITTER, size=points.shape)
        ids = np.array([part_names.index(f"{categories[label]}/{name}") for name, _ in parts])
        columns["points"].append(points.astype(np.float32))
        columns["normals"].append(normals.astype(np.float32))
        columns["label"].append(label)
        columns["point_labels"].append(ids[owners])
    return point_cloud_rows(columns, categories, part_names)


def assemble(category: str, rng: np.random.RandomState) -> list[Part]:
    """A random shape of a category, as solids with the names of the parts that they belong to."""
    return CATEGORIES[category][0](rng)


def _chair(rng: np.random.RandomState) -> list[Part]:
    width, depth = rng.uniform(0.8, 1.2, size=2)
    thickness, leg, back = rng.uniform(0.08, 0.2), rng.uniform(0.5, 1.0), rng.uniform(0.6, 1.2)
    back_thickness = rng.uniform(0.06, 0.15)
    parts: list[Part] = [("seat", Box([width, depth, thickness]))]
    back_center = np.array([0, back_thickness / 2 - depth / 2 + OVERLAP, (thickness + back) / 2 - OVERLAP])
    parts.append(("back", Box([width * rng.uniform(0.8, 1.0), back_thickness, back], center=back_center)))
    radius = rng.uniform(0.03, 0.07)
    center = np.array([width / 2 - 0.1, depth / 2 - 0.1, OVERLAP - (thickness + leg) / 2])
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        parts.append(("legs", Frustum(radius * rng.uniform(0.6, 1), radius, leg, center=center * [x, y, 1])))
    if rng.uniform() < 0.5:
        rise, bar = rng.uniform(0.2, 0.4), rng.uniform(0.06, 0.1)
        for side in (-1, 1):
            x = side * (width / 2 - bar)
            post = np.array([x, depth / 4, (thickness + rise) / 2 - OVERLAP])
            rest = np.array([x, 0.0, thickness / 2 + rise])
            parts.append(("arms", Box([bar * 0.8, bar * 0.8, rise], center=post)))
            parts.append(("arms", Box([bar, depth * 0.9, bar], center=rest)))
    return parts


def _dumbbell(rng: np.random.RandomState) -> list[Part]:
    length, radius = rng.uniform(1.0, 1.6), rng.uniform(0.05, 0.1)
    parts: list[Part] = [("bar", Frustum(radius, radius, length, rotation=ALONG_X))]
    if rng.uniform() < 0.5:
        ball = rng.uniform(0.2, 0.4)
        return parts + [("weights", Sphere(ball, center=np.array([x, 0, 0]))) for x in (-length / 2, length / 2)]
    disc, thickness = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.14)
    for number in range(rng.randint(1, 4)):
        size = disc * 0.8**number
        for side in (-1, 1):
            center = np.array([side * (length / 2 - OVERLAP - number * thickness * 1.3), 0, 0])
            parts.append(("weights", Frustum(size, size, thickness, rotation=ALONG_X, center=center)))
    return parts


def _lamp(rng: np.random.RandomState) -> list[Part]:
    base, base_height = rng.uniform(0.25, 0.5), rng.uniform(0.05, 0.15)
    pole, pole_radius = rng.uniform(0.7, 1.4), rng.uniform(0.03, 0.06)
    top = base_height / 2 + pole - OVERLAP
    parts: list[Part] = [("base", Frustum(base, base * rng.uniform(0.6, 1), base_height))]
    parts.append(("pole", Frustum(pole_radius, pole_radius, pole, center=np.array([0, 0, top - pole / 2]))))
    if rng.uniform() < 0.3:
        ball = rng.uniform(0.25, 0.4)
        return [*parts, ("shade", Sphere(ball, center=np.array([0, 0, top + ball - OVERLAP])))]
    shade, shade_height = rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.6)
    center = np.array([0, 0, top + shade_height / 2 - OVERLAP])
    return [*parts, ("shade", Frustum(shade, shade * rng.uniform(0.3, 0.8), shade_height, center=center))]


def _mug(rng: np.random.RandomState) -> list[Part]:
    radius, height = rng.uniform(0.35, 0.5), rng.uniform(0.7, 1.2)
    body = Frustum(radius * rng.uniform(0.7, 1.0), radius, height)
    tube = rng.uniform(0.04, 0.08)
    ring = min(rng.uniform(0.2, 0.35), height / 2 - tube)
    center = np.array([(body.bottom_radius + radius) / 2 + rng.uniform(0, 0.3) * ring, 0, 0])
    return [("body", body), ("handle", Torus(ring, tube, center=center, rotation=ACROSS_Y))]


def _rocket(rng: np.random.RandomState) -> list[Part]:
    radius, height, nose = rng.uniform(0.15, 0.3), rng.uniform(0.8, 1.6), rng.uniform(0.25, 0.6)
    nose_center = np.array([0, 0, (height + nose) / 2 - OVERLAP])
    parts: list[Part] = [("nose", Frustum(radius, 0.0, nose, center=nose_center))]
    parts.append(("body", Frustum(radius, radius, height)))
    num_fins, fin_height = rng.randint(3, 6), rng.uniform(0.25, 0.5)
    reach, thickness = rng.uniform(0.2, 0.4), rng.uniform(0.03, 0.06)
    for angle in 2 * math.pi * np.arange(num_fins) / num_fins:
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        center = turn @ [radius + reach / 2 - OVERLAP, 0, (fin_height - height) / 2 - OVERLAP]
        parts.append(("fins", Box([reach, thickness, fin_height], rotation=turn, center=center)))
    return parts


def _table(rng: np.random.RandomState) -> list[Part]:
    thickness, leg, leg_radius = rng.uniform(0.06, 0.15), rng.uniform(0.5, 1.0), rng.uniform(0.03, 0.07)
    z = OVERLAP - (thickness + leg) / 2
    if rng.uniform() < 0.5:
        radius, num_legs = rng.uniform(0.6, 0.9), rng.randint(3, 7)
        parts: list[Part] = [("top", Frustum(radius, radius, thickness))]
        angles = 2 * math.pi * np.arange(num_legs) / num_legs
        feet = 0.8 * radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        size = rng.uniform([0.9, 0.6], [1.8, 1.2])
        parts = [("top", Box([*size, thickness]))]
        feet = (size / 2 - 0.1) * [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    taper = rng.uniform(0.6, 1)
    for foot in feet:
        parts.append(("legs", Frustum(leg_radius * taper, leg_radius, leg, center=np.array([*foot, z]))))
    return parts


CATEGORIES: dict[str, tuple[Callable[[np.random.RandomState], list[Part]], tuple[str, ...]]] = {
    "chair": (_chair, ("seat", "back", "legs", "arms")),
    "dumbbell": (_dumbbell, ("bar", "weights")),
    "lamp": (_lamp, ("base", "pole", "shade")),
    "mug": (_mug, ("body", "handle")),
    "rocket": (_rocket, ("nose", "body", "fins")),
    "table": (_table, ("top", "legs")),
}
"""The function that assembles each category, and the names of its parts."""
