"""Rows kept in the cache: found again, never stale, never half-read."""

import os
import subprocess
import sys

import numpy as np
import pytest

from modeling_sft.data import load_point_cloud_dataset
from modeling_sft.data.point_cloud.rows import CloudFile, point_cloud_features, rows_of_files
from point_cloud_files import write_modelnet_meshes

FEATURES = point_cloud_features({"points": 3}, ["a", "b"])
READ = []
FAILURE = {}


def read_numbers(file, scale=1):
    READ.append(file.path.name)
    if file.path.name in FAILURE:
        raise FAILURE[file.path.name]
    return {"points": scale * np.loadtxt(file.path, ndmin=2).astype(np.float32)}


@pytest.fixture
def files(tmp_path):
    READ.clear()
    FAILURE.clear()
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_text("1 2 3\n" * (number + 1))
    return [CloudFile(path, number % 2) for number, path in enumerate(paths)]


def test_rows_are_read_once(files):
    first = rows_of_files(read_numbers, files, "train", FEATURES)
    second = rows_of_files(read_numbers, files, "train", FEATURES)
    assert READ == ["0.txt", "1.txt", "2.txt"]
    for rows in (first, second):
        assert rows.column_names == ["points", "label"]
        assert [row["points"].shape for row in rows] == [(1, 3), (2, 3), (3, 3)]
        assert rows[0]["points"].dtype == np.float32
        assert rows["label"][:].tolist() == [0, 1, 0]


@pytest.mark.parametrize("change", ["content", "time", "option", "label", "fewer", "order"])
def test_what_changed_is_read_anew(files, change):
    rows_of_files(read_numbers, files, "train", FEATURES)
    READ.clear()
    options = {}
    if change == "content":
        files[1].path.write_text("4 5 6\n")
    elif change == "time":
        files[1].path.write_text(files[1].path.read_text().replace("1", "7"))
        os.utime(files[1].path, ns=(10**18, 10**18))
    elif change == "option":
        options = {"scale": 2}
    elif change == "label":
        files[0] = files[0]._replace(label=1)
    elif change == "fewer":
        files.pop()
    else:
        files.reverse()
    rows = rows_of_files(read_numbers, files, "train", FEATURES, **options)
    assert [file.path.name for file in files] == READ
    assert len(rows) == len(files)
    assert rows["label"][:].tolist() == [file.label for file in files]
    for row, file in zip(rows, files):
        expected = options.get("scale", 1) * np.loadtxt(file.path, ndmin=2)
        np.testing.assert_array_equal(row["points"], expected)


@pytest.mark.parametrize(
    "failure", [ValueError("2.txt is damaged"), ImportError("needs it"), KeyboardInterrupt("stopped")]
)
def test_nothing_stays_of_a_call_that_fails(files, dataset_cache, failure):
    FAILURE["2.txt"] = failure
    with pytest.raises(type(failure), match=str(failure)):
        rows_of_files(read_numbers, files, "train", FEATURES)
    assert not list(dataset_cache.rglob("*.arrow"))
    FAILURE.clear()
    READ.clear()
    assert len(rows_of_files(read_numbers, files, "train", FEATURES)) == 3
    assert READ == ["0.txt", "1.txt", "2.txt"]


@pytest.mark.slow
def test_another_process_finds_the_rows(tmp_path, dataset_cache):
    write_modelnet_meshes(tmp_path)
    points = load_point_cloud_dataset("modelnet10", tmp_path, num_mesh_points=5)["test"][3]["points"]
    script = """if True:
        import sys
        import lab
        from modeling_sft.data import load_point_cloud_dataset
        from modeling_sft.data.point_cloud import rows as modules

        def refuse(*_, **__):
            raise AssertionError("read again")

        modules.load_point_cloud = refuse
        rows = load_point_cloud_dataset("modelnet10", sys.argv[1], num_mesh_points=5)["test"]
        print(rows[3]["points"].tolist())
    """
    environment = {**os.environ, "HF_DATASETS_CACHE": str(dataset_cache)}
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(points.tolist())
