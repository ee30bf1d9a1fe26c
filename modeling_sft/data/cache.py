"""Rows that are made once and then kept in the cache of `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset, Features

CACHE_VERSION = 1
"""To be raised when a reader makes other rows of the same files, so that what is in the cache is not used."""


def cached_rows(
    generate: Callable[..., Iterator[Mapping[str, Any]]],
    split: str,
    features: Features,
    files: Sequence[Path] = (),
    **options: Any,
) -> Dataset:
    """Makes rows once: they go to the cache of `datasets` and are memory-mapped from there.

    A later call finds them by the generator, its options and the files' paths, sizes and times of change. Nothing
    stays of a call that fails or is interrupted. `datasets` shows a progress bar unless it has been told not to.

    Args:
        generate: a function of a module, called as `generate(**options)`, and with `files` if there are some; yields
            the rows.
        split: name of the split, for the progress bar.
        features: the columns.
        files: what the rows are read from.
        options: passed to `generate`; tuples instead of lists.

    Raises:
        ValueError: what `generate` raises.
    """
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    stats = [file.stat() for file in files]
    try:
        return Dataset.from_generator(
            _generate,
            features=features,
            split=split,
            gen_kwargs={
                "generate": generate,
                # Tuples: `datasets` takes the items of a list for shards.
                "files": tuple(str(file.absolute()) for file in files),
                "options": options,
                "stamps": tuple((stat.st_size, stat.st_mtime_ns) for stat in stats),
                "version": CACHE_VERSION,
            },
        )
    except DatasetGenerationError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def _generate(
    generate: Callable[..., Iterator[Mapping[str, Any]]], files: Sequence[str], options: Mapping[str, Any], **_: Any
) -> Iterator[Mapping[str, Any]]:
    yield from generate(**({"files": [Path(file) for file in files]} if files else {}), **options)
