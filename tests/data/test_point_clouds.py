"""Benchmark readers: content, schema, and clear errors for absent, truncated and damaged files."""

import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from modeling_sft.data import load_point_cloud_dataset

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
    with pytest.raises(ValueError, match="digits, shrec16"):
        load_point_cloud_dataset("unknown")


def test_absent_files_show_the_layout(tmp_path):
    with pytest.raises(ValueError, match="data_dir is needed"):
        load_point_cloud_dataset("shrec16")
    with pytest.raises(ValueError, match=r"(?s)data_dir.*shrec16/train\.npz.*expected layout"):
        load_point_cloud_dataset("shrec16", data_dir=tmp_path)
    write_shrec16(tmp_path)
    (tmp_path / "shrec16" / "test.npz").unlink()
    with pytest.raises(ValueError, match=r"no file shrec16/test\.npz"):
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
