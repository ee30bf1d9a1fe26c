"""Estimated normals: direction, consistent and outward signs, rotation, degenerate clouds."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.point_cloud.augmentation import random_rotation
from modeling_sft.point_cloud.normals import estimate_normals


def torus(num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform points of a torus of radii 1 and 0.4, with their normals."""
    around, across = rng.uniform(0, 2 * np.pi, size=(2, 8 * num_points))
    kept = np.flatnonzero(rng.random(8 * num_points) * 1.4 < 1 + 0.4 * np.cos(across))[:num_points]
    around, across = around[kept], across[kept]
    outward = np.stack([np.cos(around), np.sin(around), np.zeros(num_points)], axis=1)
    normals = np.cos(across)[:, None] * outward + np.sin(across)[:, None] * [0.0, 0.0, 1.0]
    return outward + 0.4 * normals, normals


def union_of_boxes(num_points: int, rng: np.random.Generator, boxes: list) -> tuple[np.ndarray, np.ndarray]:
    """Uniform points of the surface of a union of axis-aligned boxes, with their normals."""
    boxes = np.array(boxes, dtype=float)
    low, high = boxes.min(axis=(0, 1)), boxes.max(axis=(0, 1))
    points, normals = [], []
    for start, end in boxes:
        size = end - start
        for axis in range(3):
            for side in (-1.0, 1.0):
                area = size.prod() / size[axis]
                face = start + rng.random((int(area * num_points / (high - low).prod() ** (2 / 3)), 3)) * size
                face[:, axis] = end[axis] if side > 0 else start[axis]
                normal = side * np.eye(3)[axis]
                outside = face + 1e-6 * normal
                hidden = [((outside > first) & (outside < last)).all(axis=1) for first, last in boxes]
                points.append(face[~np.any(hidden, axis=0)])
                normals.append(np.broadcast_to(normal, points[-1].shape))
    chosen = rng.permutation(sum(len(part) for part in points))[:num_points]
    return np.concatenate(points)[chosen], np.concatenate(normals)[chosen]


def cube(num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return union_of_boxes(num_points, rng, [[(-1, -1, -1), (1, 1, 1)]])


def letter_c(num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return union_of_boxes(num_points, rng, [[(0, 0, 0), (1, 3, 1)], [(0, 0, 0), (3, 1, 1)], [(0, 2, 0), (3, 3, 1)]])


@pytest.mark.parametrize("shape", [torus, cube, letter_c])
@pytest.mark.parametrize("num_points", [600, 1024, 2000])
def test_signs_are_outward_on_convex_and_concave_shapes(shape, num_points):
    for seed in range(4):
        points, expected = shape(num_points, np.random.default_rng(seed))
        agreement = np.einsum("ij,ij->i", estimate_normals(points * 3 + [50.0, -7.0, 1.0]), expected)
        assert (agreement > 0).mean() > 0.98
        assert np.median(agreement) > 0.9


def test_the_letter_needs_more_than_the_direction_from_the_centroid():
    points, expected = letter_c(1024, np.random.default_rng(0))
    assert (np.einsum("ij,ij->i", points - points.mean(axis=0), expected) > 0).mean() < 0.9


def test_every_part_of_a_cloud_is_outward():
    rng = np.random.default_rng(0)
    parts = [torus(700, rng), cube(500, rng), letter_c(900, rng)]
    points = np.concatenate([part + shift for (part, _), shift in zip(parts, ([0, 0, 0], [9, 0, 0], [0, 30, 5]))])
    expected = np.concatenate([normals for _, normals in parts])
    order = rng.permutation(len(points))
    agreement = np.einsum("ij,ij->i", estimate_normals(points[order]), expected[order])
    assert (agreement > 0).mean() > 0.98


def test_outward_where_most_points_face_the_centroid():
    rng = np.random.default_rng(0)
    points, expected = torus(12_000, rng)
    heights = np.einsum("ij,ij->i", points, expected)
    kept = rng.random(len(points)) < np.where(heights > 0, 0.05, 1.0)
    assert heights[kept].sum() < 0
    agreement = np.einsum("ij,ij->i", estimate_normals(points[kept]), expected[kept])
    assert (agreement > 0).mean() > 0.98


@pytest.mark.parametrize("height", [-30.0, 30.0])
def test_the_sign_of_an_open_part_does_not_depend_on_other_parts(height):
    bowl = np.random.default_rng(0).normal(size=(500, 3))
    bowl[:, 2] = np.abs(bowl[:, 2])
    bowl /= np.linalg.norm(bowl, axis=1, keepdims=True)
    normals = estimate_normals(np.concatenate([bowl, bowl + [0.0, 0.0, height]]))
    assert (np.einsum("ij,ij->i", normals, np.concatenate([bowl, bowl])) > 0).all()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.sampled_from([torus, cube, letter_c]), exponent=st.integers(-30, 30))
def test_rotating_moving_and_scaling_the_cloud_rotates_the_normals(seed, shape, exponent):
    rng = np.random.default_rng(seed)
    points, rotation = shape(700, rng)[0], random_rotation("so3", rng)
    moved = (points @ rotation.T + rng.normal(size=3)) * 10.0**exponent
    difference = np.abs(estimate_normals(moved) - estimate_normals(points) @ rotation.T).max(axis=1)
    # Rounding decides the direction where two directions vary equally little.
    assert (difference < 1e-6).mean() > 0.995


@pytest.mark.parametrize("num_points", [1, 2, 5, 16, 17, 40])
def test_degenerate_clouds_get_unit_vectors(num_points):
    line = np.linspace(0, 1, num_points)[:, None] * [1.0, 2.0, 3.0]
    plane = np.random.default_rng(0).normal(size=(num_points, 3)) * [1.0, 1.0, 0.0]
    same = np.full((num_points, 3), 0.1)
    for points in (line, plane, same, np.concatenate([same, same + 5]), plane * 1e-200, plane * 1e38):
        normals = estimate_normals(points)
        assert normals.shape == points.shape and normals.dtype == np.float64
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e38])
def test_signs_agree_on_a_flat_cloud(scale):
    points = np.random.default_rng(0).normal(size=(300, 3)) * [1.0, 1.0, 0.0]
    normals = estimate_normals(points * scale)
    np.testing.assert_allclose(np.abs(normals[:, 2]), 1)
    assert len(set(np.sign(normals[:, 2]))) == 1


def test_it_is_fast():
    points = torus(20_000, np.random.default_rng(0))[0]
    estimate_normals(points[:50])
    start = time.process_time()
    estimate_normals(points)
    # Half a second on a slow core; a loop over points takes longer than this.
    assert time.process_time() - start < 5
