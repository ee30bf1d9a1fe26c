"""The point-cloud processor: geometry, seeding, padding, validation, saving."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, AutoProcessor

from modeling_sft.point_cloud.augmentation import PointCloudAugmentation, random_rotation
from modeling_sft.point_cloud.neighbors import farthest_points
from modeling_sft.point_cloud.processing import (
    SFTPointCloudProcessor,
    estimate_normals,
    nearest_neighbors,
)

OFF = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


def cloud(num_points: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_points, 3)) * [1.0, 2.0, 0.5] + [3.0, -1.0, 0.2]


def unit_normals(num_points: int, seed: int = 1) -> np.ndarray:
    normals = np.random.default_rng(seed).normal(size=(num_points, 3))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    num_points=st.sampled_from([1, 2, 3, 16, 17, 18, 40]),
    num_neighbors=st.sampled_from([1, 2, 16, 17]),
    num_places=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_neighbors_agree_with_brute_force(num_points, num_neighbors, num_places, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(num_places, 3))[rng.integers(0, num_places, num_points)]
    neighbors = nearest_neighbors(points, num_neighbors)
    assert neighbors.shape == (num_points, num_neighbors) and neighbors.dtype == np.int64
    num_found = min(num_neighbors, num_points - 1)
    for i in range(num_points):
        found = neighbors[i, :num_found]
        assert i not in found and len(set(found.tolist())) == num_found
        assert (neighbors[i, num_found:] == i).all()
        distances = np.linalg.norm(points - points[i], axis=1)
        expected = np.sort(np.delete(distances, i))[:num_found]
        np.testing.assert_allclose(distances[found], expected, atol=1e-12)


def test_coinciding_points_are_neighbors_of_each_other():
    neighbors = nearest_neighbors(np.zeros((40, 3)), 3)
    assert (neighbors != np.arange(40)[:, None]).all()
    assert all(len(set(row)) == 3 for row in neighbors.tolist())


def test_no_neighbor_index_on_request():
    assert set(SFTPointCloudProcessor(num_neighbors=0)(cloud(5))) == {"points", "attention_mask"}


def test_estimated_normals_of_a_sphere_point_outward():
    points = unit_normals(800)
    normals = estimate_normals(points * 3 + [5.0, 0.0, 0.0])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)
    assert (np.einsum("ij,ij->i", normals, points) > 0.9).mean() > 0.99


@pytest.mark.parametrize("num_points", [1, 2, 3, 17])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_estimated_normals_are_finite_unit_vectors(num_points, scale):
    for points in (cloud(num_points) * scale, np.full((num_points, 3), 0.1 * scale)):
        normals = estimate_normals(points)
        assert normals.shape == points.shape
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)


def test_estimated_normals_rotate_with_the_cloud():
    rotation = random_rotation("so3", np.random.default_rng(0))
    points = unit_normals(300)
    np.testing.assert_allclose(estimate_normals(points @ rotation.T), estimate_normals(points) @ rotation.T, atol=1e-6)


def test_use_normals():
    points, normals = cloud(30), unit_normals(30)
    given_normals = SFTPointCloudProcessor().preprocess(points, normals * 7)["normals"]
    np.testing.assert_allclose(given_normals, normals, atol=1e-6)
    np.testing.assert_allclose(
        SFTPointCloudProcessor(use_normals=True).preprocess(points, normals)["normals"], normals, atol=1e-6
    )
    assert "normals" not in SFTPointCloudProcessor().preprocess(points)
    assert "normals" not in SFTPointCloudProcessor(use_normals=False).preprocess(points, normals)
    estimated = SFTPointCloudProcessor(use_normals=True).preprocess(points)["normals"]
    np.testing.assert_allclose(estimated, estimate_normals(points), atol=1e-6)


def test_normals_are_estimated_from_all_points():
    points = unit_normals(400)
    features = np.arange(400.0)[:, None]
    item = SFTPointCloudProcessor(num_points=20, use_normals=True).preprocess(points, point_features=features)
    kept = item["point_features"][:, 0].astype(int)
    np.testing.assert_allclose(item["normals"], estimate_normals(points)[kept], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(num_points=st.integers(2, 50), exponent=st.integers(-36, 36), seed=st.integers(0, 1000))
def test_center_and_scale(num_points, exponent, seed):
    points = SFTPointCloudProcessor().preprocess(cloud(num_points, seed) * 10.0**exponent)["points"]
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-6)


def test_huge_coordinates_must_be_scaled():
    points = np.random.default_rng(0).normal(size=(9, 3)) * 1e20
    assert np.abs(SFTPointCloudProcessor()(points)["points"].numpy()).max() <= 1
    with pytest.raises(ValueError, match=r"points holds values beyond 1e\+15 .* do_scale=True"):
        SFTPointCloudProcessor(do_scale=False)(points)


def test_center_and_scale_can_be_left_out():
    points = cloud(20)
    np.testing.assert_array_equal(
        SFTPointCloudProcessor(do_center=False, do_scale=False).preprocess(points)["points"], points.astype(np.float32)
    )
    centered = points - points.mean(axis=0)
    np.testing.assert_allclose(
        SFTPointCloudProcessor(do_scale=False).preprocess(points)["points"], centered, atol=1e-6
    )
    scaled = SFTPointCloudProcessor(do_center=False).preprocess(points)["points"]
    np.testing.assert_allclose(scaled, points / np.linalg.norm(points, axis=1).max(), atol=1e-6)


@pytest.mark.parametrize("num_points", [1, 3, 7])
def test_coinciding_points_keep_their_scale(num_points):
    item = SFTPointCloudProcessor().preprocess(np.full((num_points, 3), 0.1))
    np.testing.assert_allclose(item["points"], 0, atol=1e-12)
    assert np.isfinite(item["points"]).all()


def test_subsample_is_seeded_and_has_no_repeats():
    processor = SFTPointCloudProcessor(num_points=32)
    features = np.arange(100.0)[:, None]

    def kept(seed):
        return processor.preprocess(cloud(100), point_features=features, seed=seed)["point_features"][:, 0].tolist()

    assert len(set(kept(0))) == 32
    assert kept(None) == kept(0) == kept(0)
    assert kept(1) != kept(0)
    assert kept((1, 2)) != kept((2, 1))
    assert kept(1) != kept((1, 0))


def test_small_clouds_keep_all_points_in_order():
    item = SFTPointCloudProcessor(num_points=64).preprocess(cloud(10), point_features=np.arange(10.0)[:, None])
    assert item["point_features"][:, 0].tolist() == list(range(10))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), num_points=st.sampled_from([1, 2, 17, 60]))
def test_subsample_does_not_depend_on_the_rotation(seed, num_points):
    processor = SFTPointCloudProcessor(num_points=24)
    points, normals = cloud(num_points, seed), unit_normals(num_points)
    rotation = random_rotation("so3", np.random.default_rng(seed))
    features = np.arange(float(num_points))[:, None]
    original = processor.preprocess(points, normals, features, seed=seed)
    rotated = processor.preprocess(points @ rotation.T, normals @ rotation.T, features, seed=seed)
    np.testing.assert_array_equal(original["point_features"], rotated["point_features"])
    np.testing.assert_allclose(original["points"] @ rotation.T, rotated["points"], atol=1e-5)
    np.testing.assert_allclose(original["normals"] @ rotation.T, rotated["normals"], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(num_points=st.integers(1, 40), num_places=st.integers(1, 40), seed=st.integers(0, 1000), data=st.data())
def test_farthest_points_agree_with_brute_force(num_points, num_places, seed, data):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(num_places, 3))[rng.integers(0, num_places, num_points)] * 1e20
    chosen = farthest_points(points, data.draw(st.integers(1, num_points)))
    assert chosen.dtype == np.int64 and len(set(chosen.tolist())) == len(chosen)
    from_centroid = np.linalg.norm(points - points.mean(axis=0), axis=1)
    assert from_centroid[chosen[0]] >= from_centroid.max() * (1 - 1e-9)
    for step in range(1, len(chosen)):
        distances = np.linalg.norm(points[:, None] - points[chosen[:step]], axis=2).min(axis=1)
        assert distances[chosen[step]] >= distances.max() * (1 - 1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), num_points=st.sampled_from([2, 24, 25, 60, 200]))
def test_farthest_sampling_keeps_the_same_points_of_a_rotated_cloud(seed, num_points):
    processor = SFTPointCloudProcessor(num_points=24, point_sampling="farthest")
    points, features = cloud(num_points, seed), np.arange(float(num_points))[:, None]
    rotation = random_rotation("so3", np.random.default_rng(seed))
    original = processor.preprocess(points, point_features=features, seed=seed)
    rotated = processor.preprocess(points @ rotation.T + 7, point_features=features, seed=seed + 1)
    np.testing.assert_array_equal(original["point_features"], rotated["point_features"])
    assert len(original["points"]) == min(24, num_points)
    np.testing.assert_allclose(original["points"] @ rotation.T, rotated["points"], atol=1e-5)


def test_farthest_sampling_spreads_the_points():
    def smallest_distance(sampling):
        points = SFTPointCloudProcessor(64, point_sampling=sampling).preprocess(unit_normals(2000))["points"]
        return (np.linalg.norm(points[:, None] - points, axis=2) + 9 * np.eye(64)).min()

    assert smallest_distance("farthest") > 0.25 > 0.1 > smallest_distance("random")


@pytest.mark.parametrize("sampling", ["random", "farthest"])
def test_point_labels_follow_their_points(sampling):
    processor = SFTPointCloudProcessor(num_points=40, point_sampling=sampling)
    labels = np.arange(90)
    labels[::7] = -100
    item = processor.preprocess(
        cloud(90), None, np.arange(90.0)[:, None], labels, PointCloudAugmentation("so3", point_dropout=0.7), seed=2
    )
    assert item["point_labels"].dtype == np.int64 and len(item["points"]) == len(item["point_labels"]) < 40
    np.testing.assert_array_equal(item["point_labels"], labels[item["point_features"][:, 0].astype(int)])


def test_labels_of_a_batch_are_padded_with_the_ignored_label():
    batch = SFTPointCloudProcessor(num_neighbors=0)([cloud(4), cloud(2)], point_labels=[[0, 1, 2, 3], [5, -100]])
    assert batch["labels"].tolist() == [[0, 1, 2, 3], [5, -100, -100, -100]]
    assert batch["labels"].dtype == torch.int64 and "point_labels" not in batch
    for same in (
        np.ones((2, 3), int),
        torch.ones(2, 3, dtype=torch.int32),
        [np.ones(3, int), torch.ones(3, 1).long()],
    ):
        batch = SFTPointCloudProcessor()([cloud(3), cloud(3)], point_labels=same)
        assert batch["labels"].tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(ValueError, match="point_labels must be given for all clouds of a batch or for none"):
        SFTPointCloudProcessor()([cloud(4), cloud(2)], point_labels=[[0, 1, 2, 3], None])
    with pytest.raises(ValueError, match="point_labels must have one entry per cloud"):
        SFTPointCloudProcessor()([cloud(4), cloud(2)], point_labels=[[0, 1, 2, 3]])


def test_paths_are_read(tmp_path):
    points, normals = cloud(30), unit_normals(30)
    np.save(tmp_path / "bare.npy", points)
    np.savez(tmp_path / "full.npz", points=points, normals=normals * 3)
    processor = SFTPointCloudProcessor(num_points=20)
    labels = np.arange(30)
    expected = processor(points, normals, points, labels, seed=1)
    for path in (tmp_path / "full.npz", str(tmp_path / "full.npz"), [tmp_path / "full.npz"]):
        companions = ([points], [labels]) if isinstance(path, list) else (points, labels)
        batch = processor(path, None, *companions, seed=1)
        assert set(batch) == set(expected)
        for name, value in expected.items():
            assert torch.equal(batch[name], value), name
    np.testing.assert_array_equal(
        processor.preprocess(str(tmp_path / "bare.npy"))["points"], processor(points).points[0]
    )
    mixed = SFTPointCloudProcessor(use_normals=False)([tmp_path / "bare.npy", points, tmp_path / "full.npz"])
    assert torch.equal(mixed["points"][0], mixed["points"][1]) and torch.equal(mixed["points"][0], mixed["points"][2])
    estimated = SFTPointCloudProcessor(use_normals=True)([tmp_path / "bare.npy", tmp_path / "full.npz"])["normals"]
    np.testing.assert_allclose(estimated[0], estimate_normals(points), atol=1e-6)
    np.testing.assert_allclose(estimated[1], normals, atol=1e-6)


def test_meshes_are_sampled(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "a.off").write_text(OFF)
    assert SFTPointCloudProcessor()(tmp_path / "a.off")["points"].shape == (1, 2048, 3)
    processor = SFTPointCloudProcessor(num_points=40, num_mesh_points=100, do_center=False, do_scale=False)
    batch = processor([tmp_path / "a.off"] * 2, augmentation=PointCloudAugmentation("so3"), seed=3)
    assert batch["points"].shape == batch["normals"].shape == (2, 40, 3)
    plain = processor([tmp_path / "a.off"] * 2, seed=3)
    assert torch.equal(plain["points"][0], plain["points"][1])
    assert not torch.equal(plain["points"], processor([tmp_path / "a.off"] * 2, seed=4)["points"])
    heights = torch.einsum("bnc,bnc->bn", plain["points"], plain["normals"])
    assert set(heights.mul(3**0.5).round(decimals=3).abs().flatten().tolist()) == {0.0, 1.0}


def test_errors_of_files_name_them(tmp_path):
    np.savez(tmp_path / "good.npz", points=cloud(5))
    np.savez(tmp_path / "zero.npz", points=cloud(5), normals=np.zeros((5, 3)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-9])
    for bad in ("zero.npz", "cut.npz"):
        for points in (tmp_path / bad, [tmp_path / "good.npz", tmp_path / bad]):
            with pytest.raises(ValueError, match=bad):
                SFTPointCloudProcessor()(points)
        with pytest.raises(ValueError, match=bad):
            SFTPointCloudProcessor().preprocess(tmp_path / bad)
    with pytest.raises(ValueError, match="normals is given twice"):
        SFTPointCloudProcessor()(tmp_path / "zero.npz", unit_normals(5))


class Graph:
    """Has the attributes of a PyTorch Geometric `Data` or `Batch`."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def test_graph_objects_are_taken_apart():
    points, normals, features, labels = cloud(9), unit_normals(9), np.arange(18.0).reshape(9, 2), np.arange(9)
    processor = SFTPointCloudProcessor(num_points=7)
    expected = processor(points, normals, features, labels)
    graph = Graph(pos=torch.from_numpy(points), normal=normals, x=features, y=torch.from_numpy(labels), batch=None)
    for same in (graph, [graph], Graph(**{**graph.__dict__, "batch": torch.zeros(9, dtype=torch.int64)})):
        batch = processor(same)
        assert set(batch) == set(expected)
        for name, value in expected.items():
            assert torch.equal(batch[name], value), name
    assert set(processor.preprocess(graph)) == {
        "points",
        "normals",
        "point_features",
        "point_labels",
        "neighbor_index",
    }
    for label in (torch.tensor([3]), torch.rand(9), None, 4):
        assert "labels" not in processor(Graph(pos=points, y=label))
    assert processor([Graph(pos=points), cloud(4)], point_labels=[labels, [1] * 4])["labels"].shape == (2, 7)
    for bad, message in (
        (Graph(pos=None), ".pos is None"),
        (Graph(pos=points, batch=np.zeros(4, int)), "points.batch"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(bad)
    with pytest.raises(ValueError, match="normals is given twice"):
        processor(graph, normals)
    with pytest.raises(ValueError, match="Batch of several clouds"):
        processor.preprocess(Graph(pos=points, batch=np.zeros(9, int)))


def test_batches_of_pytorch_geometric_are_split():
    geometric = pytest.importorskip("torch_geometric.data")
    sizes = (5, 1, 8)
    parts = [
        geometric.Data(pos=torch.from_numpy(cloud(size, size)), y=torch.arange(size), normal=torch.ones(size, 3))
        for size in sizes
    ]
    processor = SFTPointCloudProcessor(num_neighbors=2)
    expected = processor(
        [cloud(size, size) for size in sizes],
        [np.ones((size, 3)) for size in sizes],
        point_labels=[np.arange(size) for size in sizes],
    )
    for same in (parts, geometric.Batch.from_data_list(parts)):
        for name, value in processor(same).items():
            assert torch.equal(value, expected[name]), name
    per_cloud = geometric.Batch.from_data_list([geometric.Data(pos=part.pos, y=torch.tensor([1])) for part in parts])
    assert set(processor(per_cloud)) == {"points", "attention_mask", "neighbor_index"}
    features = processor(per_cloud, point_features=[np.full((size, 1), size) for size in sizes])["point_features"]
    assert features[:, 0, 0].tolist() == [5, 1, 8]


@pytest.mark.parametrize("kind", ["z", "so3"])
def test_augmenting_with_a_rotation_is_rotating_the_prepared_cloud(kind):
    processor = SFTPointCloudProcessor(num_points=40)
    points, normals = cloud(90), unit_normals(90)
    plain = processor.preprocess(points, normals, seed=3)
    rotated = processor.preprocess(points, normals, augmentation=PointCloudAugmentation(kind), seed=3)
    np.testing.assert_array_equal(plain["neighbor_index"], rotated["neighbor_index"])
    rotation = np.linalg.lstsq(plain["points"], rotated["points"], rcond=None)[0].T
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(rotation, np.eye(3), atol=0.01)
    np.testing.assert_allclose(plain["normals"] @ rotation.T, rotated["normals"], atol=1e-5)
    if kind == "z":
        np.testing.assert_allclose(plain["points"][:, 2], rotated["points"][:, 2], atol=1e-6)


def test_each_augmentation_acts():
    points = cloud(50)
    plain = SFTPointCloudProcessor().preprocess(points)

    def augmented(**fields):
        return SFTPointCloudProcessor().preprocess(points, augmentation=PointCloudAugmentation(**fields), seed=1)

    np.testing.assert_allclose(augmented(scale=(2.0, 2.0))["points"], plain["points"] * 2, rtol=1e-6)
    shift = augmented(translate=0.5)["points"] - plain["points"]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-6)
    assert 0.01 < np.abs(shift).max() <= 0.5
    assert 0.005 < (augmented(jitter=0.01)["points"] - plain["points"]).std() < 0.02
    assert len(augmented(point_dropout=0.9)["points"]) < 50
    assert augmented(point_dropout=0.9)["neighbor_index"].max() < len(augmented(point_dropout=0.9)["points"])
    jittered = augmented(jitter=0.5)
    np.testing.assert_array_equal(jittered["neighbor_index"], nearest_neighbors(jittered["points"], 16))


def test_augmentation_is_a_function_of_the_seed():
    augmentation = PointCloudAugmentation("so3", (0.8, 1.2), 0.01, 0.1, 0.3)
    processor = SFTPointCloudProcessor(num_points=20)

    def points(seed):
        return processor.preprocess(cloud(40), augmentation=augmentation, seed=seed)["points"]

    np.testing.assert_array_equal(points((1, 2, 3)), points((1, 2, 3)))
    assert points((1, 2, 3)).shape != points((1, 3, 3)).shape or not np.allclose(points((1, 2, 3)), points((1, 3, 3)))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    with_normals=st.booleans(),
    num_neighbors=st.integers(0, 5),
)
def test_a_batch_is_its_clouds_padded_with_zeros(sizes, with_normals, num_neighbors):
    processor = SFTPointCloudProcessor(num_points=20, num_neighbors=num_neighbors)
    clouds = [cloud(size, seed) for seed, size in enumerate(sizes)]
    normals = [unit_normals(size) for size in sizes] if with_normals else None
    features = [np.full((size, 2), size) for size in sizes]
    batch = processor(clouds, normals, features, seed=4)
    longest = min(max(sizes), 20)
    assert batch["attention_mask"].dtype == torch.int64
    for row, size in enumerate(sizes):
        length = min(size, 20)
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (longest - length)
        alone = processor(clouds[row], normals[row] if normals else None, features[row], seed=4)
        assert set(alone) == set(batch)
        for name, value in batch.items():
            assert value.shape[:2] == (len(sizes), longest)
            assert torch.equal(value[row, :length], alone[name][0])
            assert not value[row, length:].any()


def test_kinds_of_input_agree():
    points, normals = cloud(12).astype(np.float32), unit_normals(12)
    processor = SFTPointCloudProcessor(num_neighbors=3)
    expected = processor(points, normals)
    assert expected["points"].dtype == torch.float32 and expected["neighbor_index"].dtype == torch.int64
    tensor = torch.from_numpy(points).requires_grad_()
    for same in (points.tolist(), [points], points[None], tensor, [tensor], tensor[None], list(points)):
        same_normals = normals if np.ndim(same[0][0]) == 0 else [normals]
        batch = processor(same, same_normals)
        for name, value in expected.items():
            assert torch.equal(batch[name], value), name
    for same in (torch.ones(4, 3, dtype=torch.bfloat16), np.ones((4, 3), int), np.ones((4, 3), np.float16)):
        assert torch.equal(processor(same)["points"], torch.zeros(1, 4, 3))


def test_return_tensors():
    for kind, expected in (("pt", torch.Tensor), ("np", np.ndarray), (None, np.ndarray)):
        batch = SFTPointCloudProcessor()([cloud(3), cloud(5)], return_tensors=kind)
        assert all(isinstance(value, expected) for value in batch.values())


def test_augmentation_differs_within_a_batch_and_the_subsample_does_not():
    processor = SFTPointCloudProcessor(num_points=10)
    features = np.arange(30.0)[:, None]
    batch = processor([cloud(30)] * 2, None, [features] * 2, augmentation=PointCloudAugmentation("so3"))
    assert torch.equal(batch["point_features"][0], batch["point_features"][1])
    assert not torch.allclose(batch["points"][0], batch["points"][1], atol=0.01)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "points is empty"),
        (np.zeros((0, 3)), "points is empty"),
        (np.zeros((2, 0, 3)), "points is empty"),
        ([np.zeros((4, 3)), np.zeros((0, 3))], "Cloud 1 of the batch: points is empty"),
        (np.zeros(3), "points must be one cloud"),
        (np.zeros((1, 2, 3, 3)), "points must be one cloud"),
        (5.0, "points must be one cloud"),
        (torch.tensor(5.0), "points must be one cloud"),
        ("cloud.ply", "'cloud.ply' cannot be read: there is no such file"),
        (["cloud.pcd", "cloud.ply"], "Cloud 0 of the batch: 'cloud.pcd' has no known suffix"),
        (np.zeros((4, 2)), r"\(n, 3\)"),
        (np.zeros((3, 7)), r"points\.T"),
        (np.zeros((9, 6)), r"points\[:, :3\]"),
        ([[0.0, 1.0, 2.0], [3.0, 4.0]], "points is ragged"),
        ([["a", "b", "c"]], "real numbers"),
        (np.zeros((4, 3), bool), "real numbers"),
        (np.zeros((4, 3), complex), "real numbers"),
        (np.array([[0.0, 1.0, np.nan]]), "NaN"),
        (np.array([[0.0, 1.0, -np.inf]]), "NaN"),
        (np.array([[0.0, 1.0, 1e39]]), "1e\\+38"),
    ],
)
def test_bad_points_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        SFTPointCloudProcessor()(points)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normals": np.ones((4, 3))}, "normals has 4 rows and points has 5"),
        ({"normals": np.ones((5, 2))}, r"normals of one cloud must have shape \(n, 3\)"),
        ({"normals": np.zeros((5, 3))}, "5 vectors of length 0"),
        ({"normals": np.full((5, 3), np.nan)}, "normals holds NaN"),
        ({"point_features": np.ones(5)}, r"point_features\[:, None\]"),
        ({"point_features": np.ones((5, 0))}, "point_features"),
        ({"point_features": np.full((5, 1), np.nan)}, "point_features holds NaN"),
        ({"point_features": np.ones((6, 1))}, "point_features has 6 rows"),
        ({"point_labels": np.zeros(4, int)}, "point_labels has 4 rows and points has 5"),
        ({"point_labels": np.zeros(5)}, "point_labels of one cloud must be one integer per point"),
        ({"point_labels": np.zeros((5, 2), int)}, "point_labels of one cloud must be one integer per point"),
        ({"point_labels": 3}, "point_labels of one cloud must be one integer per point"),
        ({"point_labels": [0, 1, -100, -1, 2]}, "point_labels holds -1"),
        ({"augmentation": "so3"}, "augmentation must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 0.5}, "seed must be"),
        ({"seed": ()}, "seed must be"),
    ],
)
def test_bad_companions_of_points_are_refused(arguments, message):
    for call in (SFTPointCloudProcessor().preprocess, SFTPointCloudProcessor()):
        with pytest.raises(ValueError, match=message):
            call(cloud(5), **arguments)


def test_batches_with_missing_or_unequal_parts_are_refused():
    processor = SFTPointCloudProcessor()
    with pytest.raises(ValueError, match="normals must have one entry per cloud"):
        processor([cloud(5), cloud(4)], [unit_normals(5)])
    with pytest.raises(ValueError, match="given for all clouds of a batch or for none"):
        processor([cloud(5), cloud(4)], [unit_normals(5), None])
    with pytest.raises(ValueError, match="point_features of items"):
        processor([cloud(5), cloud(4)], None, [np.ones((5, 1)), np.ones((4, 2))])
    with pytest.raises(ValueError, match="items is empty"):
        processor.pad([])
    estimating = SFTPointCloudProcessor(use_normals=True)
    assert estimating([cloud(5), cloud(4)], [unit_normals(5), None])["normals"].shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_points": 0}, "num_points must be"),
        ({"num_points": -5}, "num_points must be"),
        ({"num_points": 2.0}, "num_points must be"),
        ({"num_points": True}, "num_points must be"),
        ({"num_neighbors": -1}, "num_neighbors must be"),
        ({"do_center": "yes"}, "do_center must be"),
        ({"do_scale": 1}, "do_scale must be"),
        ({"use_normals": "auto"}, "use_normals must be"),
        ({"point_sampling": "fps"}, "point_sampling must be one of random, farthest"),
        ({"num_mesh_points": 0}, "num_mesh_points must be"),
        ({"num_mesh_points": 9.5}, "num_mesh_points must be"),
    ],
)
def test_bad_constructor_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        SFTPointCloudProcessor(**arguments)
    SFTPointCloudProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        SFTPointCloudProcessor.from_pretrained(tmp_path, **arguments)


def test_round_trip(tmp_path):
    processor = SFTPointCloudProcessor(
        num_points=7,
        do_center=False,
        do_scale=False,
        num_neighbors=3,
        use_normals=True,
        point_sampling="farthest",
        num_mesh_points=9,
    )
    processor.save_pretrained(tmp_path)
    loaded = SFTPointCloudProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert set(loaded.to_dict()["auto_map"]) == {"AutoFeatureExtractor", "AutoProcessor"}
    for name, value in processor(cloud(9)).items():
        assert torch.equal(loaded(cloud(9))[name], value)
    assert SFTPointCloudProcessor.from_pretrained(tmp_path, num_points=5).num_points == 5


@pytest.mark.slow
def test_loads_as_remote_code_where_the_package_is_absent(tmp_path):
    processor = SFTPointCloudProcessor(num_points=4, num_neighbors=2)
    processor.save_pretrained(tmp_path / "saved")
    points = [[0.0, 0, 1], [2, 0, 1], [5, 5, 5], [6, 1, 1], [7, 7, 7]]
    code = f"""
import sys
sys.modules["modeling_sft"] = None
from transformers import AutoFeatureExtractor, AutoProcessor
for auto_class in (AutoFeatureExtractor, AutoProcessor):
    processor = auto_class.from_pretrained({str(tmp_path / "saved")!r}, trust_remote_code=True)
    processor.save_pretrained({str(tmp_path / "again")!r})
    again = auto_class.from_pretrained({str(tmp_path / "again")!r}, trust_remote_code=True)
    batch = again({points})
    print(type(again).__name__, tuple(batch["points"].shape), batch["neighbor_index"].tolist())
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf_home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    line = f"SFTPointCloudProcessor (1, 4, 3) {processor(points)['neighbor_index'].tolist()}"
    assert result.stdout.splitlines() == [line, line]


@pytest.mark.parametrize("auto_class", [AutoFeatureExtractor, AutoProcessor])
def test_auto_classes_find_the_package_without_trusting_remote_code(auto_class, tmp_path):
    SFTPointCloudProcessor(num_points=4).save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is SFTPointCloudProcessor and loaded.num_points == 4


def test_neighbors_name_the_missing_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(ImportError, match=r"modeling-sft\[pointclouds\]"):
        nearest_neighbors(cloud(5), 2)
