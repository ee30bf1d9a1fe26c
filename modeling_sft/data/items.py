"""What map-style data sets share: row numbers from the end, and items that differ from epoch to epoch."""

from typing import Any

import torch


def position(index: int, length: int, what: str) -> int:
    """The index of an item counted from 0, where a negative one counts from the end.

    Args:
        index: of the item.
        length: how many items there are.
        what: what they are, for the message.

    Raises:
        IndexError: if there is no such item.
    """
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
