"""The three releases of ModelNet."""

import logging

import numpy as np
import pytest

from lab.readers.point_cloud.modelnet_names import MODELNET10_CLASSES, MODELNET40_CLASSES
from lab.readers.point_cloud.modelnet_resampled import read_resampled_cloud
from modeling_sft.data import load_point_cloud_dataset
from modeling_sft.data.point_cloud.rows import CloudFile
from point_cloud_files import clouds, flipped, write_h5, write_modelnet_hdf5, write_modelnet_meshes, write_resampled

HDF5 = "modelnet40_ply_hdf5_2048"
RESAMPLED = "modelnet40_normal_resampled"


@pytest.mark.parametrize("folder_name", ["ModelNet10", "modelnet10"])
def test_modelnet10_meshes(tmp_path, folder_name):
    write_modelnet_meshes(tmp_path, folder_name)
    (tmp_path / folder_name / "chair" / "train" / "._chair_0001.off").write_bytes(b"Mac OS X")
    (tmp_path / folder_name / "README.txt").write_text("")
    splits = load_point_cloud_dataset("modelnet10", tmp_path, num_mesh_points=50)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 20, "test": 10}
    for rows in splits.values():
        assert rows.column_names == ["points", "normals", "label"]
        assert rows.features["label"].names == list(MODELNET10_CLASSES)
        for row in rows:
            assert row["points"].shape == row["normals"].shape == (50, 3)
            assert row["points"].dtype == row["normals"].dtype == np.float32
            # On the tetrahedron of its class, with the normal of its face.
            x, y, z = (row["points"] / (row["label"] + 1)).T
            faces = np.abs([x, y, z, x + y / 2 + z / 3 - 1])
            assert faces.min(axis=0).max() < 1e-5
            slanted = np.array([6, 3, 2]) / 7
            expected = np.stack([*-np.eye(3), slanted])[faces.argmin(axis=0)]
            np.testing.assert_allclose(row["normals"], expected, atol=1e-5)
    assert splits["train"]["label"][:].tolist() == np.repeat(np.arange(10), 2).tolist()
    # Meshes of one shape get different points.
    assert not np.array_equal(splits["train"][0]["points"], splits["train"][1]["points"])


def test_modelnet40_meshes_and_the_warning_about_their_number(tmp_path, caplog):
    write_modelnet_meshes(tmp_path, "ModelNet40", MODELNET40_CLASSES, num_train=1)
    with caplog.at_level(logging.WARNING):
        splits = load_point_cloud_dataset("modelnet40", tmp_path, num_mesh_points=3)
    assert len(splits["train"]) == len(splits["test"]) == 40
    assert splits["train"].features["label"].names == list(MODELNET40_CLASSES)
    assert "40 train clouds here, officially 9843" in caplog.text


def test_meshes_that_are_absent_or_damaged(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)ModelNet10.*expected layout.*modelnet\.cs\.princeton\.edu"):
        load_point_cloud_dataset("modelnet10", tmp_path)
    with pytest.raises(ValueError, match="num_mesh_points must be an integer of at least 1; got 0"):
        load_point_cloud_dataset("modelnet10", tmp_path, num_mesh_points=0)
    folder = write_modelnet_meshes(tmp_path, num_train=1)
    path = folder / "sofa" / "train" / "sofa_0001.off"
    content = path.read_bytes()
    for length in (0, 2, len(content) // 2, len(content) - 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"sofa_0001\.off"):
            load_point_cloud_dataset("modelnet10", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"(?s)no \.off file in .*sofa/train.*expected layout"):
        load_point_cloud_dataset("modelnet10", tmp_path)


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize("lists", [True, False])
def test_modelnet40_hdf5(tmp_path, normals, lists):
    folder = write_modelnet_hdf5(tmp_path, normals)
    if not lists:
        (folder / "train_files.txt").unlink()
        (folder / "test_files.txt").unlink()
    splits = load_point_cloud_dataset(HDF5, tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 9, "test": 3}
    assert splits["train"].features["label"].names == list(MODELNET40_CLASSES)
    assert splits["train"]["label"][:].tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 10]
    assert splits["test"]["label"][:].tolist() == [14, 15, 16]
    np.testing.assert_array_equal(splits["train"]["points"][:], [*clouds(5, seed=0), *clouds(4, seed=1)])
    assert ("normals" in splits["test"].column_names) == normals
    if normals:
        np.testing.assert_array_equal(splits["test"]["normals"][:], clouds(3, seed=12))


def test_the_lists_of_hdf5_files_and_the_folder_must_agree(tmp_path):
    folder = write_modelnet_hdf5(tmp_path)
    listed = (folder / "train_files.txt").read_text()
    for content, message in (
        (listed + "x/ply_data_train2.h5\n", r"(?s)no file .*ply_data_train2\.h5.*train_files\.txt names it"),
        (listed.splitlines()[0], r"train_files\.txt.*does not name ply_data_train1\.h5"),
        (listed + listed, r"train_files\.txt.*names a file twice"),
        ("", r"train_files\.txt.*empty"),
        (listed.replace("ply", "p\0y"), r"(?s)train_files\.txt"),
    ):
        (folder / "train_files.txt").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_point_cloud_dataset(HDF5, tmp_path)


def test_files_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_modelnet_hdf5(tmp_path)
    (folder / "train_files.txt").unlink()
    for number in (10, 2):
        label = np.array([[20 + number]])
        write_h5(folder / f"ply_data_train{number}.h5", data=clouds(1), label=label, normal=clouds(1))
    assert load_point_cloud_dataset(HDF5, tmp_path)["train"]["label"][:].tolist()[-3:] == [10, 22, 30]


def test_hdf5_with_normals_in_some_files_only(tmp_path):
    folder = write_modelnet_hdf5(tmp_path)
    write_h5(folder / "ply_data_train1.h5", data=clouds(4), label=np.zeros((4, 1), int))
    with pytest.raises(ValueError, match=r"ply_data_train1\.h5.*no array normal, which others have"):
        load_point_cloud_dataset(HDF5, tmp_path)


@pytest.mark.parametrize("change", ["one fewer", "twice", "another"])
@pytest.mark.parametrize("name", [HDF5, RESAMPLED])
def test_shape_names_must_be_the_classes(tmp_path, name, change):
    if name == HDF5:
        path = write_modelnet_hdf5(tmp_path) / "shape_names.txt"
    else:
        path = write_resampled(tmp_path, 40, num_points=1) / "modelnet40_shape_names.txt"
    text = path.read_text()
    changed = {"one fewer": text.replace("xbox\n", ""), "twice": text + "xbox\n", "another": text.replace("xb", "xc")}
    path.write_text(changed[change])
    with pytest.raises(ValueError, match=r"shape_names\.txt.*40 class names"):
        load_point_cloud_dataset(name, tmp_path)


def test_resampled(tmp_path):
    write_resampled(tmp_path, 10)
    splits = load_point_cloud_dataset(RESAMPLED, tmp_path, num_classes=10)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 20, "test": 10}
    assert splits["test"].features["label"].names == list(MODELNET10_CLASSES)
    assert splits["train"]["label"][:].tolist() == np.repeat(np.arange(10), 2).tolist()
    assert [row["points"][0, 0] for row in splits["test"]] == [3 * label + 2.5 for label in range(10)]
    row = splits["train"][7]
    assert row["points"].shape == (10_000, 3) and row["points"].dtype == np.float32
    np.testing.assert_array_equal(row["points"][1:], np.tile(np.float32([-0.25, 0.1, 0.2]), (9999, 1)))
    np.testing.assert_array_equal(row["normals"], np.tile([0, 0, 1], (10_000, 1)))


def test_resampled_lists(tmp_path):
    with pytest.raises(ValueError, match="num_classes.*40 or 10; got 20"):
        load_point_cloud_dataset(RESAMPLED, tmp_path, num_classes=20)
    folder = write_resampled(tmp_path, 10, num_points=1)
    with pytest.raises(ValueError, match=r"(?s)no file .*modelnet40_shape_names\.txt.*expected layout.*pointnet2"):
        load_point_cloud_dataset(RESAMPLED, tmp_path)
    listed = (folder / "modelnet10_train.txt").read_text()
    for content, message in (
        (listed + "sofa_0077\n", r"(?s)no file .*sofa_0077\.txt.*modelnet10_train\.txt names it"),
        (listed + "sofa_0001\n", r"modelnet10_train\.txt.*sofa_0001 is listed twice"),
        (listed + "cup_0001\n", r"modelnet10_train\.txt.*'cup_0001' is no <class>_<number>"),
        (listed.replace("bed_0001", "b"), r"modelnet10_train\.txt.*'b' is no <class>_<number>"),
    ):
        (folder / "modelnet10_train.txt").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_point_cloud_dataset(RESAMPLED, tmp_path, num_classes=10)
    (folder / "modelnet10_train.txt").write_text(listed)
    with pytest.raises(ValueError, match=r"bathtub_0001\.txt.*1 lines; expected 10000"):
        load_point_cloud_dataset(RESAMPLED, tmp_path, num_classes=10)


def test_truncated_and_damaged_resampled_files(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.readers.point_cloud.modelnet_resampled.NUM_POINTS", 20)
    path = tmp_path / "bed_0001.txt"
    table = np.random.default_rng(0).normal(size=(20, 6))
    path.write_text("".join(",".join(f"{value:.6f}" for value in row) + "\n" for row in table))
    content = path.read_bytes()
    intact = read_resampled_cloud(CloudFile(path, 1))
    np.testing.assert_allclose(intact["points"], table[:, :3], atol=1e-6)
    # A cut within the last number cannot be seen.
    last = content.rindex(b",")
    for length in [0, *range(1, last + 1, 7), last, last + 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"bed_0001\.txt"):
            read_resampled_cloud(CloudFile(path, 1))
    rng = np.random.default_rng(1)
    num_refused = 0
    for _ in range(150):
        path.write_bytes(flipped(content, rng))
        try:
            cloud = read_resampled_cloud(CloudFile(path, 1))
        except ValueError as error:
            assert "bed_0001.txt" in str(error)
            num_refused += 1
        else:
            # At most one number is another one.
            changed = sum((cloud[name] != intact[name]).sum() for name in intact)
            assert cloud["points"].shape == cloud["normals"].shape == (20, 3) and changed <= 1
    assert num_refused > 50


def test_damaged_hdf5_files_are_refused_or_complete(tmp_path):
    path = write_modelnet_hdf5(tmp_path) / "ply_data_train0.h5"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(40):
        path.write_bytes(flipped(content, rng))
        try:
            rows = load_point_cloud_dataset(HDF5, tmp_path)["train"]
        except ValueError as error:
            assert "ply_data_train0.h5" in str(error)
            num_refused += 1
        else:
            assert len(rows) == 9
    assert num_refused > 5


def test_class_names_are_in_the_order_of_the_official_labels():
    assert len(MODELNET40_CLASSES) == 40 and list(MODELNET40_CLASSES) == sorted(set(MODELNET40_CLASSES))
    assert len(MODELNET10_CLASSES) == 10 and list(MODELNET10_CLASSES) == sorted(set(MODELNET10_CLASSES))
    assert set(MODELNET10_CLASSES) < set(MODELNET40_CLASSES)
