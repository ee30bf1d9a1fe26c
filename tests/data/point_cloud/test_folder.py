"""The user's own folder of clouds and meshes."""

import logging
import shutil

import numpy as np
import pytest

from modeling_sft.data import load_point_cloud_dataset
from point_cloud_files import TETRAHEDRON, clouds, write_off


def write_classes(folder, counts, normals=True, suffix="npy"):
    """Cloud i of class c has the number 10 c + i in all its coordinates."""
    for label, (class_name, count) in enumerate(counts.items()):
        (folder / class_name).mkdir(parents=True)
        for index in range(count):
            table = np.full((4 + index, 6 if normals else 3), 10.0 * label + index)
            if suffix == "npy":
                np.save(folder / class_name / f"{index:02d}.npy", table)
            else:
                np.savetxt(folder / class_name / f"{index:02d}.{suffix}", table)
    return folder


def load(folder, **options):
    return load_point_cloud_dataset("folder", folder, **options)


def numbers(rows):
    return [int(row["points"][0, 0]) for row in rows]


def test_split_folders(tmp_path):
    write_classes(tmp_path / "train", {"cup": 3, "vase": 2})
    write_classes(tmp_path / "test", {"cup": 1, "vase": 2}, suffix="XYZ")
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".git").mkdir()
    splits = load(tmp_path)
    assert list(splits) == ["train", "test"]
    assert numbers(splits["train"]) == [0, 1, 2, 10, 11] and numbers(splits["test"]) == [0, 10, 11]
    assert splits["train"]["label"][:].tolist() == [0, 0, 0, 1, 1]
    assert splits["test"].features["label"].names == ["cup", "vase"]
    row = splits["train"][4]
    assert row["points"].shape == row["normals"].shape == (5, 3)
    assert row["points"].dtype == row["normals"].dtype == np.float32
    write_classes(tmp_path / "validation", {"cup": 2, "vase": 1})
    splits = load(tmp_path)
    assert list(splits) == ["train", "validation", "test"] and numbers(splits["validation"]) == [0, 1, 10]


def test_without_split_folders_a_fixed_stratified_share_is_the_test_split(tmp_path):
    write_classes(tmp_path, {"b": 10, "a": 5, "single": 1})
    splits = load(tmp_path)
    assert splits["test"].features["label"].names == ["a", "b", "single"]
    assert np.bincount(splits["test"]["label"][:], minlength=3).tolist() == [2, 2, 0]
    assert np.bincount(splits["train"]["label"][:]).tolist() == [3, 8, 1]
    both = [number for rows in splits.values() for number in numbers(rows)]
    assert len(set(both)) == 16
    shutil.copytree(tmp_path, tmp_path.parent / "copy")
    assert numbers(load(tmp_path.parent / "copy")["test"]) == numbers(splits["test"])
    assert np.bincount(load(tmp_path, test_fraction=0.5)["test"]["label"][:], minlength=3).tolist() == [3, 5, 0]


def test_every_kind_of_file(tmp_path):
    write_off(tmp_path / "mesh" / "a.off")
    points = clouds(1)[0]
    (tmp_path / "cloud").mkdir()
    np.save(tmp_path / "cloud" / "a.npy", points)
    np.savez(tmp_path / "cloud" / "b.npz", points=points)
    np.savetxt(tmp_path / "cloud" / "c.txt", points)
    np.savetxt(tmp_path / "mesh" / "b.csv", points, delimiter=",")
    splits = load(tmp_path, num_mesh_points=9)
    rows = [row for split in splits.values() for row in split]
    assert sorted((int(row["label"]), len(row["points"])) for row in rows) == [(0, 7), (0, 7), (0, 7), (1, 7), (1, 9)]
    for row in rows:
        if len(row["points"]) == 7:
            np.testing.assert_allclose(row["points"], points, rtol=1e-6)
        else:
            assert (row["points"] >= 0).all() and (row["points"] <= TETRAHEDRON.max(axis=0)).all()


@pytest.mark.parametrize("num_without", [0, 1, 6])
def test_normals_if_every_file_has_them(tmp_path, caplog, num_without):
    write_classes(tmp_path, {"a": 3, "b": 3})
    for path in sorted(tmp_path.glob("*/*.npy"))[:num_without]:
        np.save(path, np.load(path)[:, :3])
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path)
    for rows in splits.values():
        assert ("normals" in rows.column_names) == (num_without == 0)
        assert set(rows[0]) == set(rows.column_names)
    assert ("1 of 6 files" in caplog.text) == (num_without == 1)
    assert ("normals" in caplog.text) == (num_without == 1)


def test_files_of_other_kinds_are_named(tmp_path, caplog):
    write_classes(tmp_path, {"a": 3, "b": 3})
    for name in ("a/x.pcd", "b/y.pcd", "b/z.mtl", "b/.hidden"):
        (tmp_path / name).write_text("")
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path)
    assert sum(len(rows) for rows in splits.values()) == 6
    assert "1 .mtl, 2 .pcd" in caplog.text


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="(?s)data_dir is needed for folder.*expected layout"):
        load(None)
    with pytest.raises(ValueError, match="(?s)data_dir .*gone' is no folder.*expected layout"):
        load(tmp_path / "gone")
    folder = tmp_path / "own"
    folder.mkdir()
    np.save(folder / "a.npy", clouds(1)[0])
    with pytest.raises(ValueError, match="(?s)own has no class folders.*expected layout"):
        load(folder)
    write_classes(folder, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="Each class folder has a single file"):
        load(folder)
    (folder / "c").mkdir()
    with pytest.raises(ValueError, match="(?s)own/c has no readable file.*expected layout"):
        load(folder)
    for value in (0, 1, -0.1, "half", True):
        with pytest.raises(ValueError, match="test_fraction must be between 0 and 1"):
            load(folder, test_fraction=value)
    for value in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="num_mesh_points must be an integer of at least 1"):
            load(folder, num_mesh_points=value)


def test_splits_that_do_not_fit(tmp_path):
    folder = tmp_path / "own"
    write_classes(folder / "train", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="(?s)own has no folder test beside train"):
        load(folder)
    write_classes(folder / "test", {"a": 1})
    with pytest.raises(ValueError, match="Splits train and test .*own differ in class b"):
        load(folder)
    write_classes(folder / "test", {"b": 1})
    write_classes(folder / "val", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="own has train and test beside val, which is no split"):
        load(folder)


@pytest.mark.parametrize("suffix", ["txt", "npy", "npz", "off", "h5", "ply", "obj", "stl"])
def test_a_corrupt_file_is_named(tmp_path, suffix):
    write_classes(tmp_path, {"a": 2, "b": 2})
    path = tmp_path / "b" / f"broken.{suffix}"
    for content in (b"", b"1 2 3\n4 5\n", b"1 2 nan\n", b"\x93NUMPY", b"OFF\n4 4 0\n0 0 0\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"b/broken\.{suffix}"):
            load(tmp_path)
    path.unlink()
    assert sum(len(rows) for rows in load(tmp_path).values()) == 4
