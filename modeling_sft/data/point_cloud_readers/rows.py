"""The schema that all readers share, and rows kept in the cache of `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset, Features

CACHE_VERSION = 1
"""To be raised when a reader makes other rows of the same files, so that what is in the cache is not used."""


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


def cached_rows(
    read: Callable[..., Mapping[str, Any]],
    files: Sequence[CloudFile],
    split: str,
    features: Features,
    **options: Any,
) -> Dataset:
    """Reads one row from each file, once: the rows go to the cache of `datasets` and are memory-mapped from there.

    A later call finds them by the files' paths, sizes and times of change, the reader and its options. Nothing stays
    of a call that fails or is interrupted. `datasets` shows a progress bar unless it has been told not to.

    Args:
        read: a function of a module, called as `read(file, **options)`; gives the columns of a row except `label`.
        files: what to read, in the order of the rows.
        split: name of the split, for the progress bar.
        features: see `point_cloud_features`.
        options: passed to `read`.

    Raises:
        ValueError: what `read` raises.
    """
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    stats = [file.path.stat() for file in files]
    try:
        return Dataset.from_generator(
            _read_rows,
            features=features,
            split=split,
            gen_kwargs={
                "read": read,
                # Tuples: `datasets` takes the items of a list for shards.
                "files": tuple((str(file.path.absolute()), file.label) for file in files),
                "options": options,
                "stamps": tuple((stat.st_size, stat.st_mtime_ns) for stat in stats),
                "version": CACHE_VERSION,
            },
        ).with_format("numpy")
    except DatasetGenerationError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def _read_rows(
    read: Callable[..., Mapping[str, Any]], files: Sequence[tuple[str, int]], options: Mapping[str, Any], **_: Any
) -> Iterator[dict[str, Any]]:
    for path, label in files:
        file = CloudFile(Path(path), label)
        yield {**read(file, **options), "label": label}
