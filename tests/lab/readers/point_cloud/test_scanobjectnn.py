"""ScanObjectNN: the three variants."""

import numpy as np
import pytest

from modeling_sft.data import load_point_cloud_dataset
from point_cloud_files import clouds, write_scanobjectnn


@pytest.mark.parametrize("folder_name", ["scanobjectnn", "h5_files"])
@pytest.mark.parametrize("number, variant", list(enumerate(["obj_only", "obj_bg", "pb_t50_rs"])))
def test_variants(tmp_path, number, variant, folder_name):
    write_scanobjectnn(tmp_path, folder_name)
    splits = load_point_cloud_dataset("scanobjectnn", tmp_path, variant=variant)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 6, "test": 3}
    for rows, size in ((splits["train"], 6), (splits["test"], 3)):
        assert rows.column_names == ["points", "label"]
        names = rows.features["label"].names
        assert len(names) == 15 and names[:2] == ["bag", "bin"] and names[9:11] == ["table", "bed"]
        np.testing.assert_array_equal(rows["points"][:], clouds(size, seed=number))
        assert rows["label"][:].tolist() == [2 * index + number for index in range(size)]


def test_the_hardest_variant_is_the_default(tmp_path):
    write_scanobjectnn(tmp_path)
    assert load_point_cloud_dataset("scanobjectnn", tmp_path)["test"]["label"][:].tolist() == [2, 4, 6]


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="variant.*obj_only, obj_bg, pb_t50_rs; got 'hard'"):
        load_point_cloud_dataset("scanobjectnn", tmp_path, variant="hard")
    with pytest.raises(ValueError, match=r"(?s)no folder scanobjectnn.*expected layout.*hkust-vgd\.github\.io"):
        load_point_cloud_dataset("scanobjectnn", tmp_path)
    folder = write_scanobjectnn(tmp_path)
    path = folder / "main_split" / "test_objectdataset.h5"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"main_split/test_objectdataset\.h5"):
        load_point_cloud_dataset("scanobjectnn", tmp_path, variant="obj_bg")
    path.unlink()
    with pytest.raises(ValueError, match=r"(?s)no file .*main_split/test_objectdataset\.h5.*expected layout"):
        load_point_cloud_dataset("scanobjectnn", tmp_path, variant="obj_bg")
