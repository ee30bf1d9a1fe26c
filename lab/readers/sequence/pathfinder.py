"""Pathfinder: whether two marked points lie on one path, in images read pixel by pixel.

The first 80 % of the images are the training split, the next 10 % the validation split and the last 10 % the test
split, in the order of the numbers of the metadata files and of their lines. Long Range Arena uses the same shares in
another order. Images whose file is empty are left out, with a warning.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from modeling_sft.data.cache import cached_rows
from modeling_sft.data.files import damaged, dataset_folder
from modeling_sft.hub.optional import import_optional

from ..contents import read_lines
from .rows import gray_values, value_features

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

LAYOUT = """expected layout, of https://github.com/google-research/long-range-arena:
  DATA_DIR/pathfinder{size}/<difficulty>/metadata/<number>.npy, text of one line per image: folder, file, ..., label
  DATA_DIR/pathfinder{size}/<difficulty>/<folder>/<file>, images of {size} x {size}
where <difficulty> is curv_baseline (easy), curv_contour_length_9 (intermediate) or curv_contour_length_14 (hard)."""

DIFFICULTIES = {
    "easy": "curv_baseline",
    "intermediate": "curv_contour_length_9",
    "hard": "curv_contour_length_14",
}
CLASS_NAMES = ("unconnected", "connected")
TENTHS = {"train": (0, 8), "validation": (8, 9), "test": (9, 10)}


def read_pathfinder32(data_dir: str | os.PathLike[str] | None, difficulty: str = "hard") -> dict[str, Dataset]:
    """200,000 images of 32 x 32 as 1,024 gray levels.

    Raises:
        ValueError: for another `difficulty`, and for absent and damaged files.
    """
    return _read("pathfinder32", data_dir, 32, difficulty)


def read_pathx(data_dir: str | os.PathLike[str] | None, difficulty: str = "hard") -> dict[str, Dataset]:
    """200,000 images of 128 x 128 as 16,384 gray levels.

    Raises:
        ValueError: for another `difficulty`, and for absent and damaged files.
    """
    return _read("pathx", data_dir, 128, difficulty)


def _read(name: str, data_dir: str | os.PathLike[str] | None, size: int, difficulty: str) -> dict[str, Dataset]:
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty must be one of {', '.join(DIFFICULTIES)}; got {difficulty!r}.")
    layout = LAYOUT.format(size=size)
    folder = dataset_folder(name, data_dir, layout, f"pathfinder{size}") / DIFFICULTIES[difficulty]
    paths = list((folder / "metadata").glob("*.npy"))
    if not paths:
        raise ValueError(f"{folder} has no metadata/*.npy; {layout}")
    paths.sort(key=lambda path: (len(path.stem), path.stem))
    features = value_features(size * size, CLASS_NAMES)
    return {
        split: cached_rows(_generate, split, features, paths, tenths=tenths, size=size).with_format("numpy")
        for split, tenths in TENTHS.items()
    }


def _generate(files: Sequence[Path], tenths: tuple[int, int], size: int) -> Iterator[dict[str, Any]]:
    images = [image for path in files for image in _listed_images(path)]
    start, stop = (len(images) * tenth // 10 for tenth in tenths)
    if start == stop:
        raise ValueError(f"{files[0].parent} lists {len(images)} images, too few for three splits.")
    num_empty = 0
    for path, label in images[start:stop]:
        if path.is_file() and path.stat().st_size == 0:
            num_empty += 1
            continue
        yield {"values": gray_values(_read_image(path, size)), "label": label}
    if num_empty:
        logger.warning(f"{num_empty} empty image files of {files[0].parents[1]} are left out.")


def _listed_images(path: Path) -> Iterator[tuple[Path, int]]:
    for row, line in enumerate(read_lines(path)):
        fields = line.split()
        if len(fields) < 4 or fields[3] not in ("0", "1"):
            raise damaged(path, f"row {row} (counted from 0) is not folder, file, ..., label (0 or 1)")
        yield path.parents[1] / fields[0] / fields[1], int(fields[3])


def _read_image(path: Path, size: int) -> NDArray[np.uint8]:
    image_module = import_optional("PIL.Image", "sequences")
    try:
        with image_module.open(path) as image:
            pixels = np.asarray(image.convert("L"))
    # An absent or damaged image raises OSError or one of several other errors of Pillow.
    except Exception as error:
        raise damaged(path, f"it cannot be read as an image ({type(error).__name__}: {error})") from error
    if pixels.shape != (size, size):
        raise damaged(path, f"it has {pixels.shape[0]} x {pixels.shape[1]} pixels; expected {size} x {size}")
    return pixels
