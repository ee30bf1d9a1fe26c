"""The schema that all readers share, and rows kept in the cache of `datasets`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...point_cloud.files import load_point_cloud
from ..cache import cached_rows

if TYPE_CHECKING:
    from datasets import Dataset, Features


class CloudFile(NamedTuple):
    """A file that holds one cloud."""

    path: Path
    label: int


def point_cloud_features(
    widths: Mapping[str, int], class_names: list[str], part_names: list[str] | None = None
) -> Features:
    """The columns `label`, the given ones and, with `part_names`, `point_labels`.

    Args:
        widths: second dimension of each float column, such as 3 for `points`.
        class_names: the names of `label`.
        part_names: the names of `point_labels`, where there are some.
    """
    from datasets import Array2D, ClassLabel, Features
    from datasets import Sequence as SequenceFeature

    # Array2D is read by one copy; nested lists of values take far longer.
    features: dict[str, Any] = {name: Array2D((None, width), "float32") for name, width in widths.items()}
    features["label"] = ClassLabel(names=class_names)
    if part_names is not None:
        features["point_labels"] = SequenceFeature(ClassLabel(names=part_names))
    return Features(features)


def point_cloud_rows(
    columns: Mapping[str, Any], class_names: list[str], part_names: list[str] | None = None
) -> Dataset:
    """Builds the `datasets.Dataset` that all readers return, in memory.

    Args:
        columns: `label` (rows,) and, one array per row, `points` (n, 3), `normals` (n, 3) and `point_features` (n, F),
            all float, and `point_labels` (n,), integer; n may differ from row to row.
        class_names: the names of `label`.
        part_names: the names of `point_labels`, where there are some.

    Returns:
        The rows, read as NumPy arrays.
    """
    from datasets import Dataset, Features

    widths = {
        name: np.shape(values[0])[1] for name, values in columns.items() if name not in ("label", "point_labels")
    }
    features = point_cloud_features(widths, class_names, part_names)
    return Dataset.from_dict(
        {name: list(values) for name, values in columns.items()},
        features=Features({name: features[name] for name in columns}),
    ).with_format("numpy")


def read_cloud(file: CloudFile, num_mesh_points: int) -> dict[str, Any]:
    """Reads a file with `load_point_cloud`.

    Args:
        file: a mesh or a cloud.
        num_mesh_points: points drawn from a mesh, always the same ones for files of the same name.

    Returns:
        `points` (n, 3) and `normals` (n, 3), float32; `normals` is None if the file has none.

    Raises:
        ValueError: for a file that cannot be read; the message names it.
    """
    seed = zlib.crc32(file.path.name.encode())
    cloud = load_point_cloud(file.path, num_mesh_points=num_mesh_points, seed=seed)
    normals = cloud.get("normals")
    return {
        "points": cloud["points"].astype(np.float32),
        "normals": None if normals is None else normals.astype(np.float32),
    }


def rows_of_files(
    read: Callable[..., Mapping[str, Any]], files: Sequence[CloudFile], split: str, features: Features, **options: Any
) -> Dataset:
    """Reads one row from each file, once (see `cached_rows`).

    Args:
        read: a function of a module, called as `read(file, **options)`; gives the columns of a row except `label`.
        files: what to read, in the order of the rows.
        split: name of the split, for the progress bar.
        features: see `point_cloud_features`.
        options: passed to `read`.

    Raises:
        ValueError: what `read` raises.
    """
    labels = tuple(file.label for file in files)
    paths = [file.path for file in files]
    rows = cached_rows(_read_rows, split, features, paths, read=read, labels=labels, options=tuple(options.items()))
    return rows.with_format("numpy")


def _read_rows(
    files: Sequence[Path],
    read: Callable[..., Mapping[str, Any]],
    labels: Sequence[int],
    options: Sequence[tuple[str, Any]],
) -> Iterator[dict[str, Any]]:
    for path, label in zip(files, labels, strict=True):
        yield {**read(CloudFile(path, label), **dict(options)), "label": label}
