"""Batches that pad little: by the tokens in them, or sorted by length within each optimizer step."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..hub.values import require_integer


class EpochBatchSampler(torch.utils.data.Sampler[list[int]]):
    """Batches of rows by their lengths, drawn anew for each epoch as a pure function of (seed, epoch)."""

    def __init__(self, lengths: Sequence[int], seed: int) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if self.lengths.ndim != 1 or len(self.lengths) == 0 or self.lengths.min() < 1:
            raise ValueError("lengths must be a list of at least one number, each at least 1.")
        require_integer("seed", seed, 0)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Transformers' Trainer and accelerate's data loaders call it."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0; got {epoch}.")
        self.epoch = int(epoch)


class TokenBudgetBatchSampler(EpochBatchSampler):
    """Batches of rows of similar length (nodes or tokens), whose padded tokens B * N stay within a budget.

    Rows are ordered by length, those of one length at random, and cut into batches at places that change from epoch to
    epoch; then the batches are shuffled. All epochs have the same number of batches. They are a pure function of
    (seed, epoch), so that all processes agree on them and accelerate can deal them out; where their number is no
    multiple of the processes, it repeats some batches.

    Not for models with batch norm: statistics of rows of one length are not those of inference.

    Args:
        lengths: of each row, such as `PreparedGraphs.lengths`, the nodes of each graph.
        max_tokens: the largest B * N of a batch of B rows whose longest has N tokens.
        max_rows: the largest B; None does not limit it.
        shuffle: False gives the same batches in all epochs, from the shortest rows to the longest.
        seed: an integer of at least 0.

    Raises:
        ValueError: for no lengths, a value out of range, or a row of more than `max_tokens` tokens.
    """

    def __init__(
        self, lengths: Sequence[int], max_tokens: int, max_rows: int | None = None, shuffle: bool = True, seed: int = 0
    ) -> None:
        super().__init__(lengths, seed)
        if self.lengths.max() > max_tokens:
            raise ValueError(
                f"max_tokens is {max_tokens} and row {self.lengths.argmax()} has {self.lengths.max()} tokens; raise "
                "max_tokens, or leave out longer rows."
            )
        require_integer("max_rows", max_rows, 1, or_none="for no limit")
        self.max_tokens = max_tokens
        self.max_rows = max_rows
        self.shuffle = shuffle
        self._sorted = np.sort(self.lengths)
        self._fullest = self._sizes(len(self.lengths))

    def __len__(self) -> int:
        # One batch more than needed leaves room for batches that begin elsewhere.
        return min(len(self._fullest) + self.shuffle, len(self.lengths))

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            yield from _cut(np.argsort(self.lengths, kind="stable"), self._fullest)
            return
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.lexsort((rng.random(len(self.lengths)), self.lengths))
        sizes = self._sizes(int(rng.integers(1, self._fullest[0] + 1)))
        if len(sizes) < len(self):
            largest = int(np.argmax(sizes))
            sizes[largest : largest + 1] = [sizes[largest] // 2, sizes[largest] - sizes[largest] // 2]
        batches = _cut(order, sizes)
        yield from (batches[index] for index in rng.permutation(len(batches)))

    def _sizes(self, first: int) -> list[int]:
        """The numbers of rows of batches that are filled from the shortest row up; the first has `first` at most.

        A first batch that is not full adds one batch at most, as the others begin no earlier than they did.
        """
        sizes: list[int] = []
        begin = 0
        while begin < len(self._sorted):
            limit = min(len(self._sorted) - begin, self.max_tokens // int(self._sorted[begin]))
            limit = min(limit, self.max_rows or limit, limit if sizes else first)
            costs = self._sorted[begin : begin + limit] * np.arange(1, limit + 1)
            sizes.append(int(np.searchsorted(costs, self.max_tokens, side="right")))
            begin += sizes[-1]
        return sizes


class SortedStepBatchSampler(EpochBatchSampler):
    """Batches of gradient accumulation: a random set of rows for each step, dealt out to its batches by length.

    With a loss that Trainer divides by the labels of all batches of a step, the gradient is that of one random batch,
    at less padding. Batches are a pure function of (seed, epoch), so that all processes agree on them.

    Not for models with batch norm: statistics of rows of one length are not those of inference.

    Args:
        lengths: of each row, such as `PreparedGraphs.lengths`, the nodes of each graph.
        batch_size: rows of a batch.
        batches_per_step: batches that are accumulated, over all processes.
        seed: an integer of at least 0.

    Raises:
        ValueError: for no lengths, or a value out of range.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, batches_per_step: int, seed: int = 0) -> None:
        super().__init__(lengths, seed)
        require_integer("batch_size", batch_size, 1)
        require_integer("batches_per_step", batches_per_step, 1)
        self.batch_size = batch_size
        self.batches_per_step = batches_per_step

    def __len__(self) -> int:
        full, rest = divmod(len(self.lengths), self.batch_size * self.batches_per_step)
        return full * self.batches_per_step + min(rest, self.batches_per_step)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.lengths))
        rows_per_step = self.batch_size * self.batches_per_step
        for start in range(0, len(order), rows_per_step):
            step = order[start : start + rows_per_step]
            step = step[np.argsort(self.lengths[step], kind="stable")]
            # The last step of an epoch has fewer rows in each batch, not fewer batches.
            for batch in np.array_split(step, min(len(step), self.batches_per_step)):
                yield batch.tolist()


def _cut(order: NDArray[np.int64], sizes: Sequence[int]) -> list[list[int]]:
    return [part.tolist() for part in np.split(order, np.cumsum(sizes)[:-1])]
