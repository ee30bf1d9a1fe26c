"""What map-style data sets share: columns of rows, positions from the end, items that change with the epoch."""

from collections.abc import Iterator
from typing import Any

import torch

ROWS_AT_ONCE = 256


def read_column(rows: Any, name: str, kind: str | None = None) -> Iterator[Any]:
    """The entries of a column, of a `datasets.Dataset` in the format `kind`.

    Raises:
        ValueError: for a row without it.
    """
    remedy = "; pass target=None to do without labels" if name == "label" else ""
    if not hasattr(rows, "select_columns"):
        for index, row in enumerate(rows):
            if name not in row:
                raise ValueError(f"Row {index} has no column {name!r}; its columns are {sorted(row)}{remedy}.")
            yield row[name]
        return
    if name not in rows.column_names:
        raise ValueError(f"rows has no column {name!r}; its columns are {rows.column_names}{remedy}.")
    # Many rows at once, of one column: rows one by one take far longer.
    column = rows.select_columns([name]).with_format(kind)
    for start in range(0, len(column), ROWS_AT_ONCE):
        yield from column[start : start + ROWS_AT_ONCE][name]


def position(index: int, length: int, what: str) -> int:
    """The index of an item counted from 0, where a negative one counts from the end; an IndexError if it has none."""
    if not -length <= index < length:
        raise IndexError(f"index {int(index)} is out of range for {length} {what}.")
    return int(index) % length


class EpochDataset(torch.utils.data.Dataset):
    """A data set whose items may differ from epoch to epoch; what is kept in `_cache` is not sent to workers."""

    def __init__(self) -> None:
        # In shared memory, so that workers that live on through all epochs see the change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._cache: dict[int, dict[str, Any]] = {}

    @property
    def epoch(self) -> int:
        """The epoch that the next item is drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; has no effect where nothing is drawn at random.

        Accelerate's data loaders call it in a single process, but not where they shard the batches or a seedable
        sampler over several processes: there the training loop must.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0; got {epoch}.")
        self._epoch.fill_(int(epoch))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}
