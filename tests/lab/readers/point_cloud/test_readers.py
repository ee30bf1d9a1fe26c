"""Benchmark readers: content, schema, and clear errors for absent, truncated and damaged files."""

import inspect
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from modeling_sft.data import load_point_cloud_dataset
from modeling_sft.data.point_cloud.readers import READERS
from paths import ROOT

CLASSES = ["alien", "ants", "cat"]


def archive(num_rows, **changes):
    rng = np.random.default_rng(num_rows)
    content = {
        "points": rng.normal(size=(num_rows, 7, 6)).astype(np.float16),
        "label": (np.arange(num_rows) % 3).astype(np.int16),
        "class_names": np.array(CLASSES),
        "model_id": np.array([f"T{row}" for row in range(num_rows)]),
    }
    content.update(changes)
    return {name: value for name, value in content.items() if value is not None}


VOX_CHANGES = [
    {"points": np.zeros((9, 7, 6))},
    {"points": np.full((9, 7, 3), np.inf)},
    {"normals_est": np.zeros((9, 6, 3), np.int8)},
    {"normals_est": None},
    {"label": np.full(9, 3)},
    {"class_names": np.array(CLASSES[:2])},
]


def voxel_archive(num_rows, **changes):
    rng = np.random.default_rng(num_rows)
    content = {
        "points": rng.normal(size=(num_rows, 7, 3)).astype(np.float16),
        "normals_est": rng.integers(-127, 128, size=(num_rows, 7, 3)).astype(np.int8),
        "label": np.arange(num_rows) % 3,
        "class_names": np.array(CLASSES),
        **changes,
    }
    return {name: value for name, value in content.items() if value is not None}


def write_voxels(folder, **changes):
    (folder / "modelnet10_vox").mkdir(exist_ok=True)
    np.savez_compressed(folder / "modelnet10_vox" / "train_points.npz", **voxel_archive(9, **changes))
    np.savez_compressed(folder / "modelnet10_vox" / "test_points.npz", **voxel_archive(3))
    return folder


def test_modelnet10_vox(tmp_path):
    splits = load_point_cloud_dataset("modelnet10_vox", write_voxels(tmp_path))
    for rows, size in ((splits["train"], 9), (splits["test"], 3)):
        content = voxel_archive(size)
        assert len(rows) == size and rows.column_names == ["points", "normals", "label"]
        np.testing.assert_array_equal(rows["points"][:], content["points"].astype(np.float32))
        np.testing.assert_allclose(rows["normals"][:] * 127, content["normals_est"], atol=1e-4)
        assert rows["label"][:].tolist() == content["label"].tolist()
        assert rows.features["label"].names == CLASSES


@pytest.mark.parametrize("changes", VOX_CHANGES)
def test_wrong_voxel_content_names_the_file(tmp_path, changes):
    with pytest.raises(ValueError, match=r"train_points\.npz"):
        load_point_cloud_dataset("modelnet10_vox", write_voxels(tmp_path, **changes))


def write_shrec16(folder, train=None, test=None):
    (folder / "shrec16").mkdir(exist_ok=True)
    np.savez_compressed(folder / "shrec16" / "train.npz", **(train or archive(9)))
    np.savez_compressed(folder / "shrec16" / "test.npz", **(test or archive(3)))
    return folder


def test_digits():
    digits = load_point_cloud_dataset("digits")
    assert {split: len(rows) for split, rows in digits.items()} == {"train": 1437, "test": 360}
    labels = digits["test"]["label"][:]
    assert np.bincount(labels).min() >= 34 and np.bincount(labels).max() <= 37
    assert digits["train"].features["label"].names == [str(digit) for digit in range(10)]
    row = digits["train"][0]
    assert row["points"].dtype == row["point_features"].dtype == np.float32
    assert row["points"].shape == (len(row["point_features"]), 3)

    images = {image.tobytes() for image in load_digits().images}
    for split in digits.values():
        for row in split:
            image = np.zeros((8, 8))
            column, height, depth = row["points"].astype(int).T
            assert not depth.any()
            image[7 - height, column] = row["point_features"][:, 0] * 16
            assert image.tobytes() in images


def test_the_digits_split_is_fixed():
    first, second = (load_point_cloud_dataset("digits")["test"] for _ in range(2))
    assert first["label"][:].tolist() == second["label"][:].tolist()
    assert first["label"][:12].tolist() == [3, 7, 3, 9, 0, 8, 7, 0, 8, 0, 3, 3]


def test_shrec16(tmp_path):
    train = archive(9)
    shapes = load_point_cloud_dataset("shrec16", data_dir=write_shrec16(tmp_path, train))
    assert {split: len(rows) for split, rows in shapes.items()} == {"train": 9, "test": 3}
    assert shapes["train"].column_names == ["points", "normals", "label"]
    assert shapes["train"].features["label"].names == shapes["test"].features["label"].names == CLASSES
    for index, row in enumerate(shapes["train"]):
        assert row["points"].dtype == row["normals"].dtype == np.float32
        np.testing.assert_array_equal(row["points"], train["points"][index, :, :3])
        np.testing.assert_array_equal(row["normals"], train["points"][index, :, 3:])
        assert row["label"] == index % 3


def test_rows_of_the_real_size_are_read_fast(tmp_path):
    train = archive(240, points=np.zeros((240, 1024, 6), np.float16))
    rows = load_point_cloud_dataset("shrec16", data_dir=write_shrec16(tmp_path, train))["train"]
    start = time.process_time()
    for row in rows:
        assert row["points"].shape == (1024, 3)
    # Measured at 0.2 s; nested lists of values would take 2.4 s.
    assert time.process_time() - start < 1.0


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="'shrec16'"):
        load_point_cloud_dataset("shrec")
    with pytest.raises(ValueError, match=r"digits, folder, .*, shrec16\)\."):
        load_point_cloud_dataset("unknown")


def test_unknown_options_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="'digits' has no option 'num_points'; it has none"):
        load_point_cloud_dataset("digits", num_points=3)
    with pytest.raises(ValueError, match="'folder' has no option 'points'; it has num_mesh_points, test_fraction"):
        load_point_cloud_dataset("folder", tmp_path, points=3)


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_data_set_is_documented_and_says_what_it_lacks(tmp_path, name):
    page = (ROOT / "docs" / "point_clouds.md").read_text()
    assert f"`{name}`" in page
    for option in READERS[name].options:
        assert f"`{option}" in page
        assert option in inspect.signature(READERS[name].read).parameters
    if name not in ("digits", "primitives"):
        with pytest.raises(ValueError, match=f"(?is)data_dir is needed for {name};.*expected"):
            load_point_cloud_dataset(name)
        with pytest.raises(ValueError, match="(?s)expected.*(https://|<class>).*DATA_DIR|DATA_DIR.*https://"):
            load_point_cloud_dataset(name, tmp_path)


def test_absent_files_show_the_layout(tmp_path):
    with pytest.raises(ValueError, match="data_dir is needed"):
        load_point_cloud_dataset("shrec16")
    with pytest.raises(ValueError, match=r"(?s)no folder shrec16; expected layout.*shrec16/train\.npz"):
        load_point_cloud_dataset("shrec16", data_dir=tmp_path)
    write_shrec16(tmp_path)
    (tmp_path / "shrec16" / "test.npz").unlink()
    with pytest.raises(ValueError, match=r"no file .*shrec16/test\.npz; expected layout"):
        load_point_cloud_dataset("shrec16", data_dir=tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"points": None},
        {"label": None},
        {"class_names": None},
        {"points": np.zeros((9, 7, 3))},
        {"points": np.zeros((9, 7, 6), int)},
        {"points": np.full((9, 7, 6), np.nan)},
        {"points": np.zeros((9, 0, 6))},
        {"label": np.zeros(8, int)},
        {"label": np.full(9, 3)},
        {"label": np.full(9, -1)},
        {"label": np.zeros(9)},
        {"class_names": np.array(["a", "a", "b"])},
        {"class_names": np.array([CLASSES])},
        {"class_names": np.array([["x"], None], dtype=object)},
    ],
)
def test_wrong_content_names_the_file(tmp_path, changes):
    write_shrec16(tmp_path, archive(9, **changes))
    with pytest.raises(ValueError, match=r"train\.npz"):
        load_point_cloud_dataset("shrec16", data_dir=tmp_path)


def test_splits_with_different_classes_are_refused(tmp_path):
    write_shrec16(tmp_path, test=archive(3, class_names=np.array(["x", "y", "z"])))
    with pytest.raises(ValueError, match="differ"):
        load_point_cloud_dataset("shrec16", data_dir=tmp_path)


def test_truncated_files_name_the_file(tmp_path):
    write_shrec16(tmp_path)
    path = tmp_path / "shrec16" / "train.npz"
    content = path.read_bytes()
    for length in [0, 1, 10, *np.linspace(11, len(content) - 1, 40).astype(int)]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"train\.npz"):
            load_point_cloud_dataset("shrec16", data_dir=tmp_path)


def test_damaged_files_are_refused_or_read_in_full(tmp_path):
    write_shrec16(tmp_path)
    path = tmp_path / "shrec16" / "train.npz"
    content = path.read_bytes()
    intact = load_point_cloud_dataset("shrec16", data_dir=tmp_path)["train"]
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(damaged))
        try:
            rows = load_point_cloud_dataset("shrec16", data_dir=tmp_path)["train"]
        except ValueError as error:
            assert "train.npz" in str(error)
            num_refused += 1
        else:
            for name in intact.column_names:
                assert all(np.array_equal(rows[index][name], intact[index][name]) for index in range(len(intact)))
    assert num_refused > 30
