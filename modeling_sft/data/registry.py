"""Data sets by name: what reads each of them, and with which options."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..hub.optional import import_optional

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


class ReaderEntry(NamedTuple):
    """A data set that can be read."""

    read: Callable[..., dict[str, Dataset]]
    """Called with the data folder and, by name, options."""
    options: tuple[str, ...] = ()
    """Names of the options of `read`, which a recipe's `dataset` section may set."""
    target_names: Callable[..., Sequence[str] | None] | None = None
    """Called with the options: names of the numbers in a row's target, None where the data have none."""
    is_molecular: bool = False
    """Whether the graphs are molecules, with the features that the graph processor gives to SMILES."""
    license: str | None = None
    """The licence of the data, as model cards name it."""


def read_by_name(
    readers: Mapping[str, ReaderEntry],
    kind: str,
    extra: str,
    name: str,
    data_dir: str | os.PathLike[str] | None,
    options: Mapping[str, Any],
) -> DatasetDict:
    """Calls the reader of a data set.

    Args:
        readers: those that there are.
        kind: what they read, for messages.
        extra: the optional dependencies that they need.
        name, data_dir, options: what the user asked for.

    Raises:
        ValueError: for an unknown name or option, and what the reader raises.
        ImportError: if `datasets` is not installed.
    """
    if name not in readers:
        close = difflib.get_close_matches(str(name), readers, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"name {name!r} is no known {kind} data set ({', '.join(readers)}).{hint} Benchmark sets belong to a "
            "clone of the repository: `import lab` there, or use its scripts."
        )
    entry = readers[name]
    unknown = sorted(set(options) - set(entry.options))
    if unknown:
        known = f"it has {', '.join(entry.options)}" if entry.options else "it has none"
        raise ValueError(f"Data set {name!r} has no option {unknown[0]!r}; {known}.")
    return import_optional("datasets", extra).DatasetDict(entry.read(data_dir, **options))
