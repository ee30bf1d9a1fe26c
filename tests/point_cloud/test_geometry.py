"""Geometry of clouds in torch against brute force and against its symmetries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modeling_sft.point_cloud.geometry as geometry_sft
from allocations import AllocationRecorder
from modeling_sft.point_cloud.geometry import (
    center_points,
    local_invariants,
    nearest_neighbors,
    neighbor_pair_features,
)
from random_clouds import nearest_other_points


def random_cloud(n, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 3, generator=generator, dtype=dtype)
    normals = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=dtype), dim=-1)
    return points, normals


def random_orthogonal(seed):
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return torch.from_numpy(matrix)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 9), padding=st.integers(0, 5), seed=st.integers(0, 1000))
def test_neighbours_are_the_nearest_other_real_points(n, k, padding, seed):
    points, _ = random_cloud(n, seed)
    padded = torch.cat([points, torch.zeros(padding, 3, dtype=points.dtype)])[None]
    mask = (torch.arange(n + padding) < n)[None]
    found = nearest_neighbors(padded, mask, k)
    assert torch.equal(found[0, :n], nearest_other_points(points, k))


def test_neighbours_do_not_depend_on_the_block_size(monkeypatch):
    points, _ = random_cloud(63, 0)
    mask = torch.ones(2, 63, dtype=torch.bool)
    batch = torch.stack([points, points.flip(0)])
    whole = nearest_neighbors(batch, mask, 7)
    monkeypatch.setattr(geometry_sft, "PAIR_ELEMENTS", 2 * 63 * 5)
    assert torch.equal(nearest_neighbors(batch, mask, 7), whole)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 30), k=st.integers(1, 6), seed=st.integers(0, 1000))
def test_invariants_do_not_change_under_rotation_and_reflection(n, k, seed):
    points, normals = random_cloud(n, seed)
    points = points - points.mean(0)
    index = nearest_other_points(points, k)[None]
    matrix = random_orthogonal(seed)
    before = local_invariants(points[None], normals[None], index, with_normals=True)
    after = local_invariants((points @ matrix)[None], (normals @ matrix)[None], index, with_normals=True)
    assert before.shape == (1, n, 11)
    torch.testing.assert_close(after, before, atol=1e-12, rtol=0)


def test_a_cloud_with_fewer_points_than_neighbours_counts_only_those_it_has():
    points, normals = random_cloud(3, 5)
    points = points - points.mean(0)
    index = nearest_other_points(points, 6)
    values = local_invariants(points[None], normals[None], index[None], with_normals=True)[0].numpy()
    p, n = points.numpy(), normals.numpy()
    for i in range(3):
        others = [j for j in range(3) if j != i]
        offsets = p[others] - p[i]
        lengths = np.linalg.norm(offsets, axis=1)
        along = offsets / lengths[:, None] @ n[i]
        centroid = offsets.mean(0)
        shares = np.linalg.eigvalsh((offsets - centroid).T @ (offsets - centroid))[::-1]
        radial = p[i] / np.linalg.norm(p[i])
        expected = [
            np.linalg.norm(p[i]),
            lengths.mean(),
            *(shares / shares.sum()),
            np.linalg.norm(centroid) / lengths.mean(),
            centroid @ radial / np.linalg.norm(centroid),
            n[i] @ radial,
            (n[others] @ n[i]).mean(),
            along.mean(),
            np.abs(along).mean(),
        ]
        np.testing.assert_allclose(values[i], expected, atol=1e-12)


def test_eigenvalue_shares_match_a_solver():
    points, _ = random_cloud(50, 1)
    points = points * torch.tensor([1.0, 0.3, 0.05], dtype=points.dtype)
    index = nearest_other_points(points, 8)
    shares = local_invariants(points[None], None, index[None], with_normals=False)[0, :, 2:5]
    for i in range(50):
        neighbours = points[index[i]]
        covariance = (neighbours - neighbours.mean(0)).T @ (neighbours - neighbours.mean(0)) / 8
        expected = torch.linalg.eigvalsh(covariance).flip(0) / covariance.trace()
        torch.testing.assert_close(shares[i], expected, atol=1e-12, rtol=0)


def test_invariants_are_exact_to_rounding_where_eigenvalues_nearly_tie():
    points, normals = (random_cloud(1500, seed)[0].float() for seed in range(2))
    clouds, normals = points.view(250, 6, 3), torch.nn.functional.normalize(normals, dim=-1).view(250, 6, 3)
    index = nearest_neighbors(clouds, torch.ones(250, 6, dtype=torch.bool), 3)
    single = local_invariants(clouds, normals, index, with_normals=True)
    double = local_invariants(clouds.double(), normals.double(), index, with_normals=True)
    torch.testing.assert_close(single.double(), double, atol=2e-6, rtol=0)


def test_invariants_of_a_plane_with_its_normals():
    grid = torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij"), -1).reshape(-1, 2)
    points = torch.cat([grid - 2, torch.zeros(25, 1)], -1).double()
    normals = torch.tensor([0.0, 0.0, 1.0]).double().expand(25, 3)
    index = nearest_other_points(points, 8)[None]
    values = local_invariants(points[None], normals[None], index, with_normals=True)[0]
    radius, smallest_share = values[:, 0], values[:, 4]
    torch.testing.assert_close(radius, points.norm(dim=-1))
    torch.testing.assert_close(smallest_share, torch.zeros(25).double(), atol=1e-12, rtol=0)
    facing, along, absolute = values[:, 8], values[:, 9], values[:, 10]
    torch.testing.assert_close(facing, torch.ones(25).double())
    torch.testing.assert_close(along, torch.zeros(25).double())
    torch.testing.assert_close(absolute, torch.zeros(25).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_clouds_stay_finite(dtype):
    single = torch.zeros(1, 1, 3, dtype=dtype)
    coincident = torch.ones(1, 4, 3, dtype=dtype)
    line = torch.arange(6, dtype=dtype)[None, :, None] * torch.ones(3, dtype=dtype)
    for points in (single, coincident, line):
        mask = torch.ones(points.shape[:2], dtype=torch.bool)
        index = nearest_neighbors(points, mask, 3)
        normals = torch.zeros_like(points)
        normals[..., 2] = 1
        assert local_invariants(points, normals, index, with_normals=True).isfinite().all()
        features = neighbor_pair_features(points, normals, index, slice(0, points.shape[1]), True, True)
        assert features.isfinite().all()


def test_missing_normals_leave_zeros_in_their_place():
    points, normals = random_cloud(9, 0)
    index = nearest_other_points(points, 3)[None]
    without = local_invariants(points[None], None, index, with_normals=True)
    given_normals = local_invariants(points[None], normals[None], index, with_normals=True)
    assert torch.equal(without[..., :7], given_normals[..., :7])
    assert not without[..., 7:].any()


def test_centering_ignores_padding():
    points, _ = random_cloud(5, 0)
    padded = torch.cat([points, torch.full((3, 3), 1e6, dtype=points.dtype)])[None]
    mask = (torch.arange(8) < 5)[None]
    centered = center_points(padded, mask)
    torch.testing.assert_close(centered[0, :5], points - points.mean(0))
    assert not centered[0, 5:].any()


def test_centering_is_exact_to_rounding_far_from_the_origin():
    points = random_cloud(999, 0)[0].float() + 1000
    centered = center_points(points[None], torch.ones(1, 999, dtype=torch.bool))[0]
    torch.testing.assert_close(centered.double(), points.double() - points.double().mean(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("with_normals", [False, True])
def test_invariants_do_not_depend_on_the_block_size(monkeypatch, with_normals):
    points, normals = random_cloud(63, 0, torch.float32)
    points, normals = torch.stack([points, points.flip(0)]), torch.stack([normals, normals.flip(0)])
    index = torch.stack([nearest_other_points(cloud, 5) for cloud in points])
    whole = local_invariants(points, normals, index, with_normals)
    monkeypatch.setattr(geometry_sft, "PAIR_ELEMENTS", 4 * 2 * 5 * 8)
    torch.testing.assert_close(local_invariants(points, normals, index, with_normals), whole, rtol=0, atol=1e-6)


def test_invariants_of_a_large_cloud_take_little_more_memory_than_their_result(monkeypatch):
    monkeypatch.setattr(geometry_sft, "PAIR_ELEMENTS", 2**13)
    points, normals = random_cloud(8192, 0, torch.float32)
    index = torch.randint(8192, (1, 8192, 16), generator=torch.Generator().manual_seed(0))
    with AllocationRecorder() as recorder:
        values = local_invariants(points[None], normals[None], index, with_normals=True)
    assert recorder.peak <= 2 * values.nbytes, recorder.by_operation


def test_pair_features_of_some_points_cost_what_these_cost():
    points, normals = random_cloud(20_000, 0, torch.float32)
    index = torch.zeros(1, 20_000, 4, dtype=torch.long)
    with AllocationRecorder() as recorder:
        neighbor_pair_features(points[None], normals[None], index, slice(19_990, 20_000), True, True)
    assert recorder.peak < 20_000
