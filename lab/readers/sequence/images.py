"""Images as sequences of gray levels: MNIST and CIFAR-10."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modeling_sft.data.cache import cached_rows
from modeling_sft.data.files import damaged, dataset_folder, existing_file

from ..contents import check_labels, read_archive
from .cifar_batches import read_cifar_batch
from .rows import gray_values, value_features

if TYPE_CHECKING:
    from datasets import Dataset

MNIST_LAYOUT = """expected layout, one of:
  DATA_DIR/mnist/train.npz (or train_first14k.npz, the first 14,000), test.npz
      each with image (images, 28, 28) of uint8 and label (images,)
  DATA_DIR/mnist/{train,t10k}-images-idx3-ubyte, {train,t10k}-labels-idx1-ubyte, with or without .gz
      of https://ossci-datasets.s3.amazonaws.com/mnist; the folder may be MNIST/raw."""

CIFAR10_GRAY_LAYOUT = """expected layout, made from https://www.cs.toronto.edu/~kriz/cifar.html:
  DATA_DIR/cifar10_gray/train_0.npz, train_1.npz, test.npz
each with image (images, 32, 32) of uint8, label (images,) and class_names (10,)."""

CIFAR10_LAYOUT = """expected layout, the Python version of https://www.cs.toronto.edu/~kriz/cifar.html:
  DATA_DIR/cifar-10-batches-py/data_batch_1 to data_batch_5, test_batch"""

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GRAY = np.array([0.2989, 0.5870, 0.1140])

Images = tuple[Path, NDArray[Any], NDArray[Any]]
"""The file, images (n, height, width) and labels (n,)."""


def read_mnist(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """60,000 (or 14,000) / 10,000 handwritten digits as 784 gray levels.

    Raises:
        ValueError: for absent and damaged files.
    """
    folder = dataset_folder("mnist", data_dir, MNIST_LAYOUT, "MNIST/raw")
    class_names = [str(digit) for digit in range(10)]
    if (folder / "test.npz").is_file():
        is_part = not (folder / "train.npz").is_file() and (folder / "train_first14k.npz").is_file()
        files = {"train": [folder / ("train_first14k.npz" if is_part else "train.npz")], "test": [folder / "test.npz"]}
        return _rows(files, _read_npz, 28, class_names, MNIST_LAYOUT)
    files = {
        split: [_idx_file(folder / f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
        for split, part in (("train", "train"), ("test", "t10k"))
    }
    return _rows(files, _read_idx, 28, class_names, MNIST_LAYOUT)


def read_cifar10_gray(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """50,000 / 10,000 images as 1,024 gray levels, from files of images that are gray already.

    Raises:
        ValueError: for absent and damaged files.
    """
    folder = dataset_folder("cifar10_gray", data_dir, CIFAR10_GRAY_LAYOUT)
    files = {"train": [folder / "train_0.npz", folder / "train_1.npz"], "test": [folder / "test.npz"]}
    return _rows(files, _read_npz, 32, CIFAR10_NAMES, CIFAR10_GRAY_LAYOUT)


def read_cifar10(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """50,000 / 10,000 images as 1,024 gray levels, which are 0.2989 R + 0.5870 G + 0.1140 B, rounded.

    Raises:
        ValueError: for absent and damaged files.
    """
    folder = dataset_folder("cifar10", data_dir, CIFAR10_LAYOUT, "cifar-10-batches-py")
    files = {
        "train": [folder / f"data_batch_{number}" for number in range(1, 6)],
        "test": [folder / "test_batch"],
    }
    return _rows(files, _read_batches, 32, CIFAR10_NAMES, CIFAR10_LAYOUT)


def _rows(
    files: Mapping[str, Sequence[Path]],
    read: Callable[[Sequence[Path]], Iterator[Images]],
    size: int,
    class_names: Sequence[str],
    layout: str,
) -> dict[str, Dataset]:
    features = value_features(size * size, class_names)
    return {
        split: cached_rows(
            _generate, split, features, [existing_file(path, layout) for path in paths], read=read, size=size
        ).with_format("numpy")
        for split, paths in files.items()
    }


def _generate(
    files: Sequence[Path], read: Callable[[Sequence[Path]], Iterator[Images]], size: int
) -> Iterator[dict[str, Any]]:
    for path, images, labels in read(files):
        if images.shape[1:] != (size, size) or images.dtype != np.uint8 or len(images) == 0:
            raise damaged(
                path,
                f"image has shape {images.shape} and type {images.dtype}; expected (images, {size}, {size}) of uint8",
            )
        check_labels(path, "label", labels, images.shape[:1], 10)
        for image, label in zip(images, labels.tolist()):
            yield {"values": gray_values(image), "label": label}


def _read_npz(files: Sequence[Path]) -> Iterator[Images]:
    for path in files:
        archive = read_archive(path, ("image", "label"))
        yield path, archive["image"], archive["label"]


def _read_batches(files: Sequence[Path]) -> Iterator[Images]:
    for path in files:
        pixels, labels = read_cifar_batch(path)
        gray = np.tensordot(pixels, GRAY, axes=(1, 0))
        yield path, np.rint(gray).astype(np.uint8), labels


def _read_idx(files: Sequence[Path]) -> Iterator[Images]:
    images, labels = files
    yield images, _read_idx_array(images, 3), _read_idx_array(labels, 1)


def _idx_file(path: Path) -> Path:
    """The file, or its compressed form if only that exists."""
    compressed = path.with_name(path.name + ".gz")
    return compressed if compressed.is_file() and not path.is_file() else path


def _read_idx_array(path: Path, num_dims: int) -> NDArray[np.uint8]:
    """Reads an array of bytes: 0, 0, 8 (its type), the number of dimensions, their big-endian sizes, and the data."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, f"it cannot be decompressed ({error})") from error
    start = 4 + 4 * num_dims
    if len(content) < start or content[:4] != bytes((0, 0, 8, num_dims)):
        raise damaged(path, f"it does not begin as an idx file of bytes with {num_dims} dimensions")
    shape = np.frombuffer(content, ">u4", num_dims, 4).astype(int)
    if len(content) - start != shape.prod():
        raise damaged(path, f"it has {len(content) - start} bytes of data; its header says {shape.prod()}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
