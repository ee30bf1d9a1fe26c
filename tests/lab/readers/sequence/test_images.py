"""Images as sequences of gray levels: MNIST, CIFAR-10 and Pathfinder."""

import gzip
import logging
import os
import pickle
import struct
import time

import numpy as np
import pytest
from PIL import Image

from modeling_sft.data import load_sequence_dataset

pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def images(count, size, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, size, size)).astype(np.uint8)


def check(rows, expected, labels):
    assert len(rows) == len(expected) and rows.column_names == ["values", "label"]
    assert [int(row["label"]) for row in rows] == list(labels)
    for row, image in zip(rows, expected):
        assert row["values"].dtype == np.float32 and row["values"].shape == (image.size, 1)
        np.testing.assert_allclose(row["values"][:, 0] * 255, image.reshape(-1), atol=1e-4)
        assert row["values"].min() >= 0 and row["values"].max() <= 1


def write_npz(path, count, size, seed=0, **changes):
    path.parent.mkdir(exist_ok=True)
    content = {"image": images(count, size, seed), "label": (np.arange(count) % 10).astype(np.uint8)} | changes
    np.savez_compressed(path, **{name: value for name, value in content.items() if value is not None})


@pytest.mark.parametrize("train", ["train.npz", "train_first14k.npz"])
def test_mnist_archives(tmp_path, train):
    write_npz(tmp_path / "mnist" / train, 12, 28, seed=1)
    write_npz(tmp_path / "mnist" / "test.npz", 3, 28, seed=2)
    splits = load_sequence_dataset("mnist", tmp_path)
    check(splits["train"], images(12, 28, 1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    check(splits["test"], images(3, 28, 2), [0, 1, 2])
    assert splits["train"].features["label"].names == [str(digit) for digit in range(10)]


def write_idx(path, array, compress):
    content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".gz" * compress).write_bytes(gzip.compress(content) if compress else content)


def write_official_mnist(folder, compress, images_of_test=None):
    for number, name in enumerate(("train", "t10k")):
        pixels = images_of_test if images_of_test is not None and number else images(5 - number, 28, number)
        write_idx(folder / f"{name}-images-idx3-ubyte", pixels, compress)
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.arange(5 - number, dtype=np.uint8) + 5, compress)


@pytest.mark.parametrize(("folder", "compress"), [("mnist", True), ("MNIST/raw", False)])
def test_official_files_of_mnist(tmp_path, folder, compress):
    write_official_mnist(tmp_path / folder, compress)
    splits = load_sequence_dataset("mnist", tmp_path)
    check(splits["train"], images(5, 28, 0), [5, 6, 7, 8, 9])
    check(splits["test"], images(4, 28, 1), [5, 6, 7, 8])


def test_damaged_official_files_of_mnist(tmp_path):
    write_official_mnist(tmp_path / "mnist", True)
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for damage, match in (
        (content[:-30], "decompressed"),
        (b"PK" + content[2:], "decompressed"),
        (gzip.compress(gzip.decompress(content)[:-1]), "bytes of data"),
        (gzip.compress(b"\0\0\x0d\3" + gzip.decompress(content)[4:]), "idx"),
        (gzip.compress(b"\0\0"), "idx"),
    ):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte\.gz is damaged.*{match}"):
            load_sequence_dataset("mnist", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="no file .*train-images-idx3-ubyte; expected layout"):
        load_sequence_dataset("mnist", tmp_path)


def test_official_files_that_do_not_fit_together(tmp_path):
    write_official_mnist(tmp_path / "mnist", False, images_of_test=images(3, 28))
    with pytest.raises(ValueError, match="label has shape"):
        load_sequence_dataset("mnist", tmp_path)


def write_gray(folder, **changes):
    for number, (name, count) in enumerate((("train_0", 4), ("train_1", 3), ("test", 2))):
        write_npz(folder / "cifar10_gray" / f"{name}.npz", count, 32, number, **(changes if number == 1 else {}))


def test_cifar10_gray(tmp_path):
    write_gray(tmp_path)
    splits = load_sequence_dataset("cifar10_gray", tmp_path)
    check(splits["train"], [*images(4, 32, 0), *images(3, 32, 1)], [0, 1, 2, 3, 0, 1, 2])
    check(splits["test"], images(2, 32, 2), [0, 1])
    assert splits["test"].features["label"].names[::9] == ["airplane", "truck"]
    np.testing.assert_array_equal(splits["train"]["values"][:3].shape, (3, 1024, 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"image": None},
        {"label": None},
        {"image": images(3, 28)},
        {"image": images(3, 32).astype(np.float32)},
        {"image": images(0, 32), "label": np.zeros(0, np.uint8)},
        {"label": np.zeros(2, np.uint8)},
        {"label": np.full(3, 10)},
        {"label": np.full(3, -1)},
        {"label": np.zeros(3)},
    ],
)
def test_wrong_content_names_the_file(tmp_path, changes):
    write_gray(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"train_1\.npz"):
        load_sequence_dataset("cifar10_gray", tmp_path)


def test_truncated_and_absent_archives(tmp_path):
    write_gray(tmp_path)
    path = tmp_path / "cifar10_gray" / "train_1.npz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"train_1\.npz cannot be read"):
        load_sequence_dataset("cifar10_gray", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"no file .*train_1\.npz; expected layout"):
        load_sequence_dataset("cifar10_gray", tmp_path)


def test_rows_are_kept_and_read_fast(tmp_path):
    write_npz(tmp_path / "mnist" / "train.npz", 300, 28)
    write_npz(tmp_path / "mnist" / "test.npz", 2, 28)
    first = load_sequence_dataset("mnist", tmp_path)
    assert load_sequence_dataset("mnist", tmp_path)["train"].cache_files == first["train"].cache_files != []
    start = time.process_time()
    for row in first["train"]:
        assert row["values"].shape == (784, 1)
    # Measured at 0.1 s; nested lists of values would take seconds.
    assert time.process_time() - start < 1.0
    write_npz(tmp_path / "mnist" / "train.npz", 5, 28)
    assert len(load_sequence_dataset("mnist", tmp_path)["train"]) == 5


def batch(count, seed, **changes):
    pixels = np.random.RandomState(seed).randint(0, 256, (count, 3072)).astype(np.uint8)
    return {"batch_label": "b", "labels": [(seed + row) % 10 for row in range(count)], "data": pixels} | changes


def write_batches(folder, protocol=2, **contents):
    (folder / "cifar-10-batches-py").mkdir()
    for number, name in enumerate([*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]):
        with (folder / "cifar-10-batches-py" / name).open("wb") as file:
            pickle.dump(contents.get(name, batch(2, number)), file, protocol=protocol)


def gray(seed):
    red, green, blue = batch(2, seed)["data"].reshape(2, 3, 32, 32).transpose(1, 0, 2, 3).astype(float)
    return np.round(0.2989 * red + 0.5870 * green + 0.1140 * blue)


@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar10(tmp_path, protocol):
    write_batches(tmp_path, protocol)
    splits = load_sequence_dataset("cifar10", tmp_path)
    check(splits["train"], [image for seed in range(5) for image in gray(seed)], [0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    check(splits["test"], gray(5), [5, 6])


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_batches_run_no_code(tmp_path):
    write_batches(tmp_path, test_batch=batch(2, 0, data=Attack(str(tmp_path / "broken_in"))))
    with pytest.raises(ValueError, match=r"(?s)test_batch is damaged.*posix\.mkdir"):
        load_sequence_dataset("cifar10", tmp_path)
    assert not (tmp_path / "broken_in").exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"data": batch(2, 0)["data"]},
        batch(2, 0, data=[1]),
        batch(2, 0, data=np.zeros((2, 3071), np.uint8)),
        batch(2, 0, data=np.zeros((2, 3072))),
        batch(2, 0, data=np.array([None, 1])),
        batch(2, 0, labels=[0, 10]),
        batch(2, 0, labels=[0]),
        batch(2, 0, labels=[0, "1"]),
    ],
)
def test_wrong_batches_are_named(tmp_path, content):
    write_batches(tmp_path, data_batch_3=content)
    with pytest.raises(ValueError, match="data_batch_3 is damaged"):
        load_sequence_dataset("cifar10", tmp_path)


def test_truncated_and_absent_batches(tmp_path):
    write_batches(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="data_batch_2 is damaged"):
        load_sequence_dataset("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="no file .*data_batch_2; expected layout"):
        load_sequence_dataset("cifar10", tmp_path)


def write_pathfinder(folder, count=20, size=32, name="pathfinder32", part="curv_contour_length_14"):
    """Image i has the metadata file 10 from 8 on, 9 before; its label is the parity of i // 2."""
    base = folder / name / part
    (base / "metadata").mkdir(parents=True)
    lines = {"9": [], "10": []}
    for index, image in enumerate(images(count, size)):
        (base / "imgs" / str(index % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(base / "imgs" / str(index % 3) / f"sample_{index}.png")
        lines["9" if index < 8 else "10"].append(f"imgs/{index % 3} sample_{index}.png {index} {index // 2 % 2} 1.5 2")
    for number, content in lines.items():
        (base / "metadata" / f"{number}.npy").write_text("\n".join(content) + "\n")
    return base


def test_pathfinder(tmp_path):
    write_pathfinder(tmp_path)
    splits = load_sequence_dataset("pathfinder32", tmp_path)
    labels = [index // 2 % 2 for index in range(20)]
    for split, part in (("train", slice(0, 16)), ("validation", slice(16, 18)), ("test", slice(18, 20))):
        check(splits[split], images(20, 32)[part], labels[part])
    assert splits["test"].features["label"].names == ["unconnected", "connected"]


def test_pathx_and_difficulties(tmp_path):
    write_pathfinder(tmp_path, 10, 128, "pathfinder128", "curv_baseline")
    rows = load_sequence_dataset("pathx", tmp_path, difficulty="easy")["train"]
    check(rows, images(10, 128)[:8], [0, 0, 1, 1, 0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"curv_contour_length_14 has no metadata.*\n.*pathfinder128"):
        load_sequence_dataset("pathx", tmp_path)
    with pytest.raises(ValueError, match="difficulty must be one of easy, intermediate, hard; got 'medium'"):
        load_sequence_dataset("pathx", tmp_path, difficulty="medium")


def test_empty_images_are_left_out_with_a_warning(tmp_path, caplog, monkeypatch):
    base = write_pathfinder(tmp_path)
    (base / "imgs" / "2" / "sample_5.png").write_bytes(b"")
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        splits = load_sequence_dataset("pathfinder32", tmp_path)
    assert "1 empty image files" in caplog.text
    check(splits["train"], np.delete(images(20, 32), 5, axis=0)[:15], [0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1])


def test_damaged_images_and_lists_are_named(tmp_path):
    base = write_pathfinder(tmp_path)
    image = base / "imgs" / "0" / "sample_3.png"
    content = image.read_bytes()
    image.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"sample_3\.png is damaged"):
        load_sequence_dataset("pathfinder32", tmp_path)
    Image.fromarray(images(1, 31)[0]).save(image)
    with pytest.raises(ValueError, match=r"sample_3\.png is damaged.*31 x 31"):
        load_sequence_dataset("pathfinder32", tmp_path)
    image.unlink()
    with pytest.raises(ValueError, match=r"sample_3\.png is damaged.*FileNotFound"):
        load_sequence_dataset("pathfinder32", tmp_path)
    image.write_bytes(content)
    (base / "metadata" / "9.npy").write_text("imgs/0 sample_0.png 0 2\n")
    with pytest.raises(ValueError, match=r"9\.npy is damaged.*row 0"):
        load_sequence_dataset("pathfinder32", tmp_path)
    (base / "metadata" / "10.npy").unlink()
    (base / "metadata" / "9.npy").write_text("imgs/0 sample_0.png 0 1\n")
    with pytest.raises(ValueError, match="1 images, too few"):
        load_sequence_dataset("pathfinder32", tmp_path)
