"""Moment invariants: exact under rotation, reflection and scaling; they tell points apart."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.point_cloud.geometry import center_points
from modeling_sft.point_cloud.moments import cloud_moments, moment_invariants
from random_clouds import random_batch, random_orthogonal


def invariants(batch, with_normals=True):
    mask = batch["attention_mask"].bool()
    count = mask.sum(1)[:, None, None]
    points = (batch["points"] - batch["points"].sum(1, keepdim=True) / count).masked_fill(~mask[..., None], 0)
    return moment_invariants(points, batch.get("normals"), cloud_moments(points, mask), with_normals)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), reflection=st.booleans(), scale=st.floats(1e-3, 1e3), size=st.integers(1, 40))
def test_rotation_reflection_and_scale_change_nothing(seed, reflection, scale, size):
    batch = random_batch([size, 7], seed=seed, length=max(size, 9))
    rotation = random_orthogonal(seed, reflection)
    moved = batch | {"points": scale * batch["points"] @ rotation.T, "normals": batch["normals"] @ rotation.T}
    torch.testing.assert_close(invariants(moved), invariants(batch), rtol=1e-9, atol=1e-9)


def test_squared_principal_coordinates_follow_from_them():
    batch = random_batch([50])
    points = batch["points"] * torch.tensor([3.0, 2.0, 1.0])
    centered = points - points.mean(1, keepdim=True)
    found = invariants(batch | {"points": points})[0]
    unit = centered[0] / centered[0].square().sum(-1).mean().sqrt()
    variances, axes = torch.linalg.eigh(3 * unit.T @ unit / 50)
    squares = (unit @ axes).square()
    torch.testing.assert_close(found[:, 0], squares @ variances)
    torch.testing.assert_close(found[:, 1], squares @ variances.square())
    powers = torch.stack([variances**0, variances, variances**2])
    sums = torch.stack([unit.square().sum(-1), found[:, 0], found[:, 1]])
    torch.testing.assert_close(torch.linalg.solve(powers, sums).T, squares)


def test_the_two_ends_of_a_club_differ():
    along = torch.cat([torch.linspace(-1, 0, 10), torch.linspace(0, 2, 10)])[None, :, None].double()
    cloud = {"points": along * torch.tensor([[1.0, 0, 0]]), "attention_mask": torch.ones(1, 20)}
    side = invariants(cloud, with_normals=False)[0, :, 2]
    assert side[-1] > 0 > side[0]


@pytest.mark.parametrize("padding", [1, 30])
def test_padding_does_not_count(padding):
    batch, padded = random_batch([11, 6]), random_batch([11, 6], length=11 + padding)
    torch.testing.assert_close(invariants(padded)[:, :11], invariants(batch), rtol=0, atol=1e-12)


def test_coinciding_points_and_absent_normals_give_zeros():
    cloud = {"points": torch.ones(1, 5, 3, dtype=torch.float64), "attention_mask": torch.ones(1, 5)}
    assert torch.equal(invariants(cloud)[..., [0, 1, 2, 3, 4, 6, 7]], torch.zeros(1, 5, 7, dtype=torch.float64))
    batch = random_batch([9], normals=False)
    assert not invariants(batch)[..., 6:].any()
    torch.testing.assert_close(invariants(batch)[..., :6], invariants(batch, with_normals=False))


def test_the_order_of_points_changes_no_bit_of_the_moments():
    points = random_batch([300], dtype=torch.float32)["points"]
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    every = torch.ones(1, 300, dtype=torch.bool)
    for found, permuted in zip(cloud_moments(points, every), cloud_moments(points[:, order], every), strict=True):
        assert torch.equal(found, permuted)
    assert torch.equal(center_points(points[:, order], every), center_points(points, every)[:, order])
