"""ShapeNetPart in its two layouts."""

import json
import shutil

import numpy as np
import pytest

from lab.readers.point_cloud.shapenetpart import CATEGORIES, FIRST_PART, PARTS, read_annotated_cloud
from modeling_sft.data import load_point_cloud_dataset
from modeling_sft.data.point_cloud.rows import CloudFile
from point_cloud_files import (
    SYNSETS,
    clouds,
    flipped,
    part_ids,
    write_h5,
    write_shapenetpart_hdf5,
    write_shapenetpart_text,
)


def load(folder, **options):
    return load_point_cloud_dataset("shapenetpart", folder, **options)


def test_parts_are_numbered_as_in_the_release():
    assert len(CATEGORIES) == 16 and len(PARTS) == 50 == FIRST_PART[-1]
    assert FIRST_PART.tolist() == [0, 4, 6, 8, 12, 16, 19, 22, 24, 28, 30, 36, 38, 41, 44, 47, 50]
    assert CATEGORIES == sorted(CATEGORIES)
    assert (PARTS[0], PARTS[24], PARTS[27], PARTS[49]) == ("Airplane/0", "Lamp/0", "Lamp/3", "Table/2")


@pytest.mark.parametrize("name", ["hdf5_data", "shapenetpart_hdf5_2048", "shapenetpart", "shapenetpart/hdf5_data"])
@pytest.mark.parametrize("parts", ["pid", "seg"])
def test_hdf5(tmp_path, name, parts):
    folder = write_shapenetpart_hdf5(tmp_path, name, parts)
    if parts == "seg":
        for path in folder.glob("*list.txt"):
            path.unlink()
    splits = load(tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 20, "validation": 5, "test": 3}
    for rows in splits.values():
        assert rows.column_names == ["points", "label", "point_labels"]
        assert rows.features["label"].names == CATEGORIES
        assert rows.features["point_labels"].feature.names == PARTS
    labels = np.array([*range(16), 1, 2, 3, 4])
    assert splits["train"]["label"][:].tolist() == labels.tolist()
    np.testing.assert_array_equal(splits["train"]["points"][:], [*clouds(16, seed=0), *clouds(4, seed=1)])
    np.testing.assert_array_equal(splits["train"]["point_labels"][:], part_ids(labels))
    assert splits["train"][0]["point_labels"].dtype == np.int64


@pytest.mark.parametrize("wrong", [3, 6, 49])
def test_parts_of_another_category_are_refused(tmp_path, wrong):
    folder = write_shapenetpart_hdf5(tmp_path)
    parts = part_ids(np.array([1, 1]))
    parts[1, 4] = wrong
    write_h5(folder / "ply_data_val0.h5", data=clouds(2), label=np.array([[1], [1]]), pid=parts)
    with pytest.raises(ValueError, match=rf"ply_data_val0\.h5.*part {wrong}, which no Bag has"):
        load(tmp_path)


def test_hdf5_lists_and_absent_splits(tmp_path):
    folder = write_shapenetpart_hdf5(tmp_path)
    (folder / "train_hdf5_file_list.txt").write_text("ply_data_train0.h5\n")
    with pytest.raises(ValueError, match=r"train_hdf5_file_list\.txt.*does not name ply_data_train1\.h5"):
        load(tmp_path)
    (folder / "train_hdf5_file_list.txt").unlink()
    (folder / "ply_data_val0.h5").unlink()
    with pytest.raises(ValueError, match=r"(?s)no file .*ply_data_val0\.h5.*val_hdf5_file_list\.txt names it"):
        load(tmp_path)
    (folder / "val_hdf5_file_list.txt").unlink()
    with pytest.raises(ValueError, match=r"(?s)no file .*val.*expected one of two layouts"):
        load(tmp_path)


def test_text(tmp_path):
    folder = write_shapenetpart_text(tmp_path)
    splits = load(tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 16, "validation": 16, "test": 16}
    for number, (split, rows) in enumerate(splits.items()):
        assert rows.column_names == ["points", "normals", "label", "point_labels"]
        assert sorted(rows["label"][:].tolist()) == list(range(16))
        short = {"validation": "val"}.get(split, split)
        listed = json.loads((folder / "train_test_split" / f"shuffled_{short}_file_list.json").read_text())
        for row, name in zip(rows, listed):
            index = 3 * row["label"] + number
            assert name.endswith(f"/shape{index}")
            assert row["points"].dtype == row["normals"].dtype == np.float32
            np.testing.assert_array_equal(row["points"], np.tile([index, 0.25, -0.5], (5 + index, 1)))
            np.testing.assert_array_equal(row["normals"], np.tile([0, 0, 1], (5 + index, 1)))
            np.testing.assert_array_equal(row["point_labels"], part_ids(np.array([row["label"]]), 5 + index)[0])


def test_the_layout_is_chosen_if_both_are_there(tmp_path):
    with pytest.raises(ValueError, match="(?s)no folder of shapenetpart.*two layouts.*github.com/charlesq34"):
        load(tmp_path)
    with pytest.raises(ValueError, match="layout.*'hdf5' or 'txt'; got 'csv'"):
        load(tmp_path, layout="csv")
    write_shapenetpart_hdf5(tmp_path)
    with pytest.raises(ValueError, match="(?s)no folder of shapenetpart"):
        load(tmp_path, layout="txt")
    write_shapenetpart_text(tmp_path)
    with pytest.raises(ValueError, match="both layouts of shapenetpart: set layout"):
        load(tmp_path)
    assert len(load(tmp_path, layout="hdf5")["train"]) == 20
    assert len(load(tmp_path, layout="txt")["train"]) == 16


def test_text_lists(tmp_path):
    folder = write_shapenetpart_text(tmp_path)
    path = folder / "train_test_split" / "shuffled_train_file_list.json"
    listed = json.loads(path.read_text())
    bag = f"shape_data/{SYNSETS[1]}"
    for entries, message in (
        ([*listed, f"{bag}/gone"], r"(?s)no file .*gone\.txt.*shuffled_train_file_list\.json names it"),
        ([*listed, f"{bag}/a\0b"], r"(?s)no file .*shuffled_train_file_list\.json names it"),
        ([*listed, f"{bag}/{'a' * 400}"], r"(?s)no file .*shuffled_train_file_list\.json names it"),
        ([*listed, listed[0]], r"shuffled_train_file_list\.json.*listed twice"),
        ([*listed, "shape_data/00000000/a"], r"shuffled_train_file_list\.json.*00000000/a' is no"),
        ([*listed, "a"], r"shuffled_train_file_list\.json.*'a' is no"),
        ([*listed, 3], r"shuffled_train_file_list\.json.*no list of shapes"),
        ({}, r"shuffled_train_file_list\.json.*no list of shapes"),
    ):
        path.write_text(json.dumps(entries))
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    content = json.dumps(listed)
    for length in range(0, len(content), len(content) // 10):
        path.write_text(content[:length])
        with pytest.raises(ValueError, match=r"shuffled_train_file_list\.json"):
            load(tmp_path)
    other = folder / "train_test_split" / "shuffled_test_file_list.json"
    shutil.copy(other, path)
    with pytest.raises(ValueError, match=r"shuffled_test_file_list\.json.*listed twice \(also for train\)"):
        load(tmp_path)


@pytest.mark.parametrize("change", ["fewer", "other name", "same synset", "word"])
def test_categories_file(tmp_path, change):
    path = write_shapenetpart_text(tmp_path) / "synsetoffset2category.txt"
    text = path.read_text()
    first, second = text.splitlines()[:2]
    changed = {
        "fewer": text.replace(first + "\n", ""),
        "other name": text.replace("Bag", "Bug"),
        "same synset": text.replace(SYNSETS[1], SYNSETS[0]),
        "word": text.replace(second, second + " more"),
    }
    path.write_text(changed[change])
    with pytest.raises(ValueError, match=r"synsetoffset2category\.txt"):
        load(tmp_path)


def test_truncated_and_damaged_clouds(tmp_path):
    path = tmp_path / "shape.txt"
    table = np.random.default_rng(0).normal(size=(20, 6))
    parts = part_ids(np.array([4]), 20)[0]
    lines = [" ".join(f"{x:.5f}" for x in row) + f" {part:.6f}\n" for row, part in zip(table, parts)]
    path.write_text("".join(lines))
    content = path.read_bytes()
    starts = np.cumsum([0] + [len(line) for line in lines])
    num_seen = 0
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        # A cut between two lines, or within the last number of one, cannot be seen.
        lost = starts[starts > length].min() - length
        try:
            cloud = read_annotated_cloud(CloudFile(path, 4))
        except ValueError as error:
            assert "shape.txt" in str(error)
            num_seen += 1
        else:
            assert lost <= 9 or length in starts
            assert len(cloud["points"]) >= (starts <= length).sum() - 1
    assert num_seen > 200
    rng = np.random.default_rng(1)
    num_refused = 0
    for _ in range(200):
        path.write_bytes(flipped(content, rng))
        try:
            cloud = read_annotated_cloud(CloudFile(path, 4))
        except ValueError as error:
            assert "shape.txt" in str(error)
            num_refused += 1
        else:
            assert cloud["points"].shape == cloud["normals"].shape == (20, 3)
            assert set(cloud["point_labels"]) <= set(parts)
    assert num_refused > 60


def test_a_damaged_cloud_is_named(tmp_path):
    folder = write_shapenetpart_text(tmp_path)
    path = folder / SYNSETS[2] / "shape7.txt"
    text = path.read_text()
    for change in (
        ("\n", " 1\n"),
        ("0.25", "nan"),
        ("0.25", "1e99"),
        ("0.25", "x"),
        ("7", "#"),
        (text, ""),
        (text, "\n"),
    ):
        path.write_text(text.replace(*change, 1))
        with pytest.raises(ValueError, match=r"shape7\.txt"):
            load(tmp_path)
    for part, message in (("6.5", "part ids"), ("40", "part 40, which no Cap has")):
        path.write_text(text.replace("6.000000", part, 1))
        with pytest.raises(ValueError, match=rf"shape7\.txt.*{message}"):
            load(tmp_path)
