"""Rotations are proper and uniform; draws respect their bounds and the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.point_cloud.augmentation import PointCloudAugmentation, random_rotation


@settings(max_examples=50, deadline=None)
@given(kind=st.sampled_from(["none", "z", "so3"]), seed=st.integers(0, 2**32))
def test_rotation_is_orthogonal_with_determinant_one(kind, seed):
    rotation = random_rotation(kind, np.random.default_rng(seed))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-14)


def test_so3_is_uniform():
    rng = np.random.default_rng(0)
    rotations = np.stack([random_rotation("so3", rng) for _ in range(4000)])
    # For Haar measure every entry has mean 0 and variance 1/3, every row is uniform on the sphere (so each of its
    # coordinates is uniform in [-1, 1], by Archimedes), and the trace has mean 0 and variance 1.
    np.testing.assert_allclose(rotations.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(rotations.var(axis=0), 1 / 3, atol=0.03)
    trace = np.trace(rotations, axis1=1, axis2=2)
    assert abs(trace.mean()) < 0.08 and abs(trace.var() - 1) < 0.1
    quantiles = np.quantile(rotations[:, 2, 2], [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(quantiles, [-0.8, -0.5, 0, 0.5, 0.8], atol=0.06)


def test_z_rotation_keeps_the_axis_and_is_uniform():
    rng = np.random.default_rng(0)
    rotations = np.stack([random_rotation("z", rng) for _ in range(2000)])
    np.testing.assert_array_equal(rotations[:, 2], np.tile([0.0, 0.0, 1.0], (2000, 1)))
    angles = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    counts = np.histogram(angles, bins=8, range=(-np.pi, np.pi))[0]
    assert counts.min() > 190 and counts.max() < 310


def test_draw_respects_bounds_and_keeps_one_point():
    augmentation = PointCloudAugmentation("so3", scale=(0.5, 2.0), jitter=0.1, translate=0.3, point_dropout=0.9)
    rng = np.random.default_rng(0)
    draws = [augmentation.draw(20, rng) for _ in range(300)]
    scales = [draw.scale for draw in draws]
    assert 0.5 <= min(scales) < 0.6 and 1.9 < max(scales) <= 2.0
    shifts = np.stack([draw.translation for draw in draws])
    assert np.abs(shifts).max() <= 0.3 and np.abs(shifts).max() > 0.29
    sizes = {len(draw.kept) for draw in draws}
    assert min(sizes) >= 2 and max(sizes) == 20
    for draw in draws:
        assert (np.diff(draw.kept) > 0).all() and draw.kept.min() >= 0 and draw.kept.max() < 20
        assert draw.jitter.shape == (len(draw.kept), 3)
    assert np.concatenate([draw.jitter for draw in draws]).std() == pytest.approx(0.1, rel=0.05)
    assert len(augmentation.draw(1, rng).kept) == 1


def test_the_rotation_of_a_seed_does_not_depend_on_the_other_fields():
    plain = PointCloudAugmentation("so3").draw(10, np.random.default_rng(5))
    busy = PointCloudAugmentation("so3", (0.5, 2.0), 0.1, 0.3, 0.5).draw(33, np.random.default_rng(5))
    np.testing.assert_array_equal(plain.rotation, busy.rotation)


def test_default_changes_nothing():
    draw = PointCloudAugmentation().draw(4, np.random.default_rng(0))
    np.testing.assert_array_equal(draw.rotation, np.eye(3))
    assert draw.scale == 1.0 and draw.jitter is None
    np.testing.assert_array_equal(draw.translation, np.zeros(3))
    np.testing.assert_array_equal(draw.kept, np.arange(4))


def test_a_list_from_a_recipe_equals_a_tuple():
    assert PointCloudAugmentation(scale=[1, 2]) == PointCloudAugmentation(scale=(1.0, 2.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rotation", "y"),
        ("scale", 1.0),
        ("scale", (2.0, 1.0)),
        ("scale", (0.0, 1.0)),
        ("scale", (1.0, float("nan"))),
        ("jitter", -0.1),
        ("jitter", "0.1"),
        ("translate", float("inf")),
        ("point_dropout", 1.0),
        ("point_dropout", -0.1),
        ("point_dropout", True),
    ],
)
def test_values_outside_their_range_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        PointCloudAugmentation(**{field: value})
    if field == "rotation":
        with pytest.raises(ValueError, match=field):
            random_rotation(value, np.random.default_rng(0))
