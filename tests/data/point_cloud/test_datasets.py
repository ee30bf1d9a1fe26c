"""Prepared data sets: determinism per (seed, epoch, index), caching, workers."""

import pickle

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader

from modeling_sft.data import PointCloudCollator, PreparedPointClouds, point_cloud_rows
from modeling_sft.point_cloud.augmentation import PointCloudAugmentation
from modeling_sft.point_cloud.processing import SFTPointCloudProcessor

AUGMENTATION = PointCloudAugmentation("so3", (0.9, 1.1), 0.01, 0.1, 0.2)
PROCESSOR = SFTPointCloudProcessor(num_points=16, num_neighbors=4)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    points = [rng.normal(size=(20 + index, 3)).astype(np.float32) for index in range(6)]
    return point_cloud_rows({"points": points, "normals": points, "label": [0, 1] * 3}, ["a", "b"])


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_items_without_augmentation_are_fixed_and_cached(rows):
    calls = []

    class CountingProcessor(SFTPointCloudProcessor):
        def preprocess(self, *arguments, **keywords):
            calls.append(keywords["seed"])
            return super().preprocess(*arguments, **keywords)

    prepared = PreparedPointClouds(rows, CountingProcessor(num_points=16, num_neighbors=4), seed=3)
    first = prepared[2]
    prepared.set_epoch(5)
    second = prepared[2]
    assert len(calls) == 1 and same(first, second)
    late = PreparedPointClouds(rows, PROCESSOR, seed=3)
    late.set_epoch(5)
    assert same(late[2], first)
    second["points"] = None
    assert same(prepared[2], first)
    assert same(first, PreparedPointClouds(rows, PROCESSOR, seed=3)[2])
    assert not same(first, PreparedPointClouds(rows, PROCESSOR, seed=4)[2])
    assert set(first) == {"points", "normals", "neighbor_index", "labels"}
    assert [prepared[index]["labels"] for index in range(6)] == [0, 1] * 3
    assert same(prepared[-1], prepared[5]) and len(list(prepared)) == len(prepared) == 6


def test_augmented_items_are_a_function_of_seed_epoch_and_index(rows):
    prepared = PreparedPointClouds(rows, PROCESSOR, AUGMENTATION, seed=1)
    first = prepared[0]
    prepared.set_epoch(1)
    assert prepared.epoch == 1
    later = prepared[0]
    assert not same(first, later)
    prepared.set_epoch(0)
    assert same(prepared[0], first)
    other = PreparedPointClouds(rows, PROCESSOR, AUGMENTATION, seed=1)
    other.set_epoch(1)
    assert same(other[0], later)
    assert not same(PreparedPointClouds(rows, PROCESSOR, AUGMENTATION, seed=2)[0], first)


def test_the_subsample_is_drawn_anew_each_epoch_and_is_the_plain_one_at_epoch_0():
    features = [{"points": np.random.default_rng(0).normal(size=(50, 3)), "point_features": np.arange(50.0)[:, None]}]
    augmented = PreparedPointClouds(features, PROCESSOR, PointCloudAugmentation("so3"))
    kept = []
    for epoch in range(3):
        augmented.set_epoch(epoch)
        kept.append(augmented[0]["point_features"][:, 0].tolist())
    assert kept[0] != kept[1] != kept[2]
    plain = PreparedPointClouds(features, PROCESSOR)[0]
    assert plain["point_features"][:, 0].tolist() == kept[0]
    assert "labels" not in plain


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_workers_see_the_epoch(rows, persistent_workers):
    prepared = PreparedPointClouds(rows, PROCESSOR, AUGMENTATION)
    loader = torch.utils.data.DataLoader(
        prepared,
        batch_size=3,
        num_workers=1,
        persistent_workers=persistent_workers,
        collate_fn=PointCloudCollator(PROCESSOR),
    )
    for epoch in (0, 1):
        prepared.set_epoch(epoch)
        expected = PointCloudCollator(PROCESSOR)([prepared[index] for index in range(3)])
        batch = next(iter(loader))
        assert all(torch.equal(batch[name], value) for name, value in expected.items())


def test_accelerate_moves_the_epoch_on(rows):
    prepared = PreparedPointClouds(rows, PROCESSOR, AUGMENTATION)
    loader = prepare_data_loader(
        torch.utils.data.DataLoader(prepared, batch_size=6, collate_fn=PointCloudCollator(PROCESSOR)),
        num_processes=1,
        process_index=0,
        put_on_device=False,
    )
    first, second = (next(iter(list(loader))) for _ in range(2))
    assert prepared.epoch == 1
    assert first["points"].shape != second["points"].shape or not torch.equal(first["points"], second["points"])


def test_pickled_copies_agree(rows):
    prepared = PreparedPointClouds(rows, PROCESSOR, seed=2)
    item = prepared[1]
    copy = pickle.loads(pickle.dumps(prepared))
    assert same(copy[1], item)


def test_bad_rows_and_arguments_are_named(rows):
    with pytest.raises(ValueError, match="Row 1: points holds NaN"):
        PreparedPointClouds([{"points": np.zeros((2, 3))}, {"points": np.full((2, 3), np.nan)}], PROCESSOR)[1]
    with pytest.raises(ValueError, match="no column 'points'"):
        PreparedPointClouds([{"pos": np.zeros((2, 3))}], PROCESSOR)[0]
    with pytest.raises(ValueError, match="seed"):
        PreparedPointClouds(rows, PROCESSOR, seed=-1)
    with pytest.raises(ValueError, match="epoch"):
        PreparedPointClouds(rows, PROCESSOR).set_epoch(-1)
    for index in (6, -7):
        with pytest.raises(IndexError):
            PreparedPointClouds(rows, PROCESSOR)[index]


def test_the_target_is_the_label_unless_points_are_labelled(rows):
    row = {**rows[0], "point_labels": np.arange(len(rows[0]["points"]))}
    whole = PreparedPointClouds([row], PROCESSOR)[0]
    assert whole["labels"] == row["label"] and "point_labels" not in whole
    each = PreparedPointClouds([row], PROCESSOR, target="point_labels")[0]
    assert each["category"] == row["label"] and "labels" not in each
    assert each["point_labels"].shape == (16,)
    with pytest.raises(ValueError, match="target must be"):
        PreparedPointClouds([row], PROCESSOR, target="labels")
