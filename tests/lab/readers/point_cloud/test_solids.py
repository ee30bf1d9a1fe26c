"""Surfaces of solids: areas, uniform points, true normals, and what is hidden inside of others."""

import math

import numpy as np
import pytest

from lab.readers.point_cloud.solids import Box, Frustum, Sphere, Torus, sample_union

TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
PLACED = {"center": np.array([0.3, -0.7, 0.2]), "rotation": TURN}

SOLIDS = [
    (Box([0.5, 1.0, 2.0], **PLACED), 7.0, 1.0),
    (Frustum(0.5, 0.5, 2.0, **PLACED), 2.5 * math.pi, 0.5 * math.pi),
    (Frustum(3.0, 0.0, 4.0, **PLACED), 24 * math.pi, 12 * math.pi),
    (Frustum(1.0, 4.0, 4.0, **PLACED), 42 * math.pi, 28 * math.pi),
    (Sphere(0.5, **PLACED), math.pi, math.pi / 6),
    (Torus(1.0, 0.5, **PLACED), 2 * math.pi**2, 0.5 * math.pi**2),
]


@pytest.mark.parametrize("solid, area, volume", SOLIDS)
def test_surfaces(solid, area, volume):
    points, normals = solid.sample(np.random.RandomState(0), 200_000)
    assert solid.area == pytest.approx(area)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    inside = solid.contains(points - 1e-6 * normals)
    assert inside.all() and not solid.contains(points + 1e-6 * normals).any()
    # Divergence theorem: holds for uniform points with true outward normals only.
    np.testing.assert_allclose(normals.mean(axis=0), 0, atol=0.01)
    relative = points - solid.center
    assert area * (relative * normals).sum(axis=1).mean() / 3 == pytest.approx(volume, rel=0.01)
    # The same for the field x |x|^2, whose divergence is 5 |x|^2: against the mean over a box of points inside.
    reach = np.abs(relative).max()
    grid = np.random.RandomState(1).uniform(-reach, reach, size=(400_000, 3))
    squares = (grid**2).sum(axis=1) * solid.contains(grid + solid.center)
    flux = area * ((relative * normals).sum(axis=1) * (relative**2).sum(axis=1)).mean()
    assert flux == pytest.approx(5 * squares.mean() * (2 * reach) ** 3, rel=0.03)


def test_points_inside_another_solid_are_dropped():
    solids = [Box([1, 1, 1]), Box([1, 1, 1], center=np.array([0.75, 0, 0]), rotation=np.eye(3)), Sphere(0.1)]
    points, normals, owners = sample_union(solids, np.random.RandomState(0), 30_001)
    assert points.shape == normals.shape == (30_001, 3) and owners.shape == (30_001,)
    # The small ball is hidden; each box shows five faces, four of which overlap with the other's in a quarter.
    assert set(owners) == {0, 1}
    for number, solid in enumerate(solids):
        assert not solid.contains(points[owners != number]).any()
        assert not solid.contains(points[owners == number] + 1e-6 * normals[owners == number]).any()
    assert np.mean(owners == 0) == pytest.approx(0.5, abs=0.01)
    ends = np.abs(points[:, 0] - 0.375) > 0.875 - 1e-9
    assert ends.mean() == pytest.approx(2 / 10, abs=0.01)


def test_points_are_uniform_over_the_union():
    solids = [Sphere(1.0), Sphere(0.5, center=np.array([10.0, 0, 0]))]
    owners = sample_union(solids, np.random.RandomState(0), 20_000)[2]
    assert np.mean(owners == 0) == pytest.approx(0.8, abs=0.01)
    # In no order, so that any prefix is a sample too.
    assert np.mean(owners[:1000] == 0) == pytest.approx(0.8, abs=0.04)
