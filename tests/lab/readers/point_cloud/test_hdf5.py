"""HDF5 files that are damaged or of another kind."""

import sys

import h5py
import numpy as np
import pytest

from lab.readers.point_cloud.hdf5 import read_hdf5_clouds
from point_cloud_files import clouds, flipped, write_h5

CLOUDS = clouds(5)
LABEL = np.arange(5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clouds.h5"


def test_arrays(path):
    write_h5(path, data=CLOUDS.astype(np.float64), label=LABEL[:, None].astype(np.uint8), other=np.array([1]))
    columns = read_hdf5_clouds(path, 5)
    assert set(columns) == {"points", "label"}
    assert columns["points"].dtype == np.float32 and columns["label"].dtype == np.int64
    np.testing.assert_array_equal(columns["points"], CLOUDS)
    np.testing.assert_array_equal(columns["label"], LABEL)


@pytest.mark.parametrize("parts", ["pid", "seg"])
def test_part_ids(path, parts):
    ids = np.arange(35, dtype=np.uint8).reshape(5, 7)
    write_h5(path, data=CLOUDS, label=LABEL, **{parts: ids})
    np.testing.assert_array_equal(read_hdf5_clouds(path, 5, ("pid", "seg"))["point_labels"], ids)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": None}, "no array data"),
        ({"label": None}, "no array label"),
        ({"data": CLOUDS[:, :, :2]}, "data has shape"),
        ({"data": CLOUDS[0]}, "data has shape"),
        ({"data": CLOUDS.astype(int)}, "type int64"),
        ({"data": np.where(CLOUDS > 0, np.nan, CLOUDS)}, "NaN"),
        ({"data": CLOUDS[:4]}, "label has shape"),
        ({"label": LABEL + 1}, "between 0 and 4"),
        ({"label": LABEL - 1}, "between 0 and 4"),
        ({"label": LABEL.astype(float)}, "of integers"),
        ({"label": np.array([b"a"] * 5)}, "expected numbers"),
        ({"normal": CLOUDS[:4]}, "normal"),
        ({"normal": CLOUDS[:, :3]}, "normal"),
        ({"pid": None}, "no array pid or seg"),
        ({"pid": np.zeros((5, 6), int)}, "pid has shape"),
        ({"pid": np.zeros((5, 7))}, "of integers"),
    ],
)
def test_arrays_that_do_not_fit(path, arrays, message):
    arrays = {"data": CLOUDS, "label": LABEL, "pid": np.zeros((5, 7), int), **arrays}
    write_h5(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=rf"clouds\.h5.*{message}"):
        read_hdf5_clouds(path, 5, ("pid", "seg"))


@pytest.mark.parametrize("storage", [{"compression": "gzip"}, {"chunks": (2, 7, 3)}, {}])
def test_what_was_never_written_is_not_read_as_zeros(path, storage):
    with h5py.File(path, "w") as file:
        file["label"] = LABEL
        data = file.create_dataset("data", shape=CLOUDS.shape, dtype="f4", **storage)
        if storage.get("chunks"):
            data[:2] = CLOUDS[:2]
    with pytest.raises(ValueError, match=r"clouds\.h5.*only a part of data"):
        read_hdf5_clouds(path, 5)


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "raw", "group"])
def test_arrays_of_other_files_are_refused(path, tmp_path, kind):
    write_h5(tmp_path / "other.h5", data=CLOUDS)
    CLOUDS.tofile(tmp_path / "other.raw")
    with h5py.File(path, "w") as file:
        file["label"] = LABEL
        if kind == "soft":
            file["data"] = h5py.SoftLink("/label")
        elif kind == "external":
            file["data"] = h5py.ExternalLink("other.h5", "data")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(CLOUDS.shape, "f4")
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "data", shape=CLOUDS.shape)
            file.create_virtual_dataset("data", layout)
        elif kind == "raw":
            file.create_dataset("data", CLOUDS.shape, "f4", external=[(str(tmp_path / "other.raw"), 0, CLOUDS.nbytes)])
        else:
            file.create_group("data")
    with pytest.raises(ValueError, match=r"clouds\.h5.*data"):
        read_hdf5_clouds(path, 5)


def test_truncated_files(path):
    write_h5(path, data=CLOUDS, label=LABEL)
    content = path.read_bytes()
    for length in [0, 1, 8, *range(9, len(content), len(content) // 40)]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"clouds\.h5"):
            read_hdf5_clouds(path, 5)


@pytest.mark.parametrize("compression", ["gzip", None])
def test_damaged_files_are_refused_or_complete(path, compression):
    with h5py.File(path, "w") as file:
        for name, array in (("data", CLOUDS), ("label", LABEL)):
            file.create_dataset(name, data=array, compression=compression)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(300):
        path.write_bytes(flipped(content, rng))
        try:
            columns = read_hdf5_clouds(path, 5)
        except ValueError as error:
            assert "clouds.h5" in str(error)
            num_refused += 1
        else:
            assert columns["points"].shape == CLOUDS.shape and columns["label"].shape == (5,)
            # Compressed values have a checksum; of others, one byte changes one.
            assert (columns["points"] != CLOUDS).sum() <= (compression is None)
    assert num_refused > 15


def test_without_h5py(path, monkeypatch):
    write_h5(path, data=CLOUDS, label=LABEL)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"h5py.*modeling-sft\[pointclouds\]"):
        read_hdf5_clouds(path, 5)
