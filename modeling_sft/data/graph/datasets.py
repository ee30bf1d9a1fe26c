"""Data sets of graphs as PyTorch sees them: rows run through the processor once, reproducibly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.encodings import flip_signs
from ...graph.processing import SFTGraphProcessor
from ...hub.values import require_integer
from ..items import EpochDataset, position, read_column

if TYPE_CHECKING:
    from datasets import Dataset as RowDataset


class PreparedGraphs(EpochDataset):
    """Map-style data set of processed graphs, whose encodings are computed at their first use and kept in memory.

    Item i is a pure function of (seed, epoch, i) when flipping signs, so that a resumed run sees what an uninterrupted
    one would, and of i otherwise. Each worker process of a DataLoader keeps its own items.

    Args:
        rows: a `datasets.Dataset` or any sequence of graphs that `SFTGraphProcessor` accepts.
        processor: prepares each row.
        flip_signs: flip the signs of the Laplacian's eigenvectors at random, for training.
        seed: an integer of at least 0.

    Raises:
        ValueError: for no rows or a bad `seed`; when reading an item, for a row that the processor refuses (the row is
            named).
    """

    def __init__(
        self, rows: RowDataset | Sequence[Any], processor: SFTGraphProcessor, flip_signs: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        require_integer("seed", seed, 0)
        if not hasattr(rows, "__len__"):
            raise ValueError("rows has no length; give a map-style data set or a list.")
        if len(rows) == 0:
            raise ValueError("rows is empty; pass at least one graph.")
        self._rows: Any = rows.with_format("numpy") if hasattr(rows, "with_format") else rows
        self.processor = processor
        self.flip_signs = flip_signs
        self.seed = seed

    @cached_property
    def lengths(self) -> list[int]:
        """The number of nodes of each graph; prepares all items, unless the rows have a column `num_nodes`."""
        if "num_nodes" in (getattr(self._rows, "column_names", None) or ()):
            return [int(length) for length in read_column(self._rows, "num_nodes")]
        return [len(self._item(index)["node_features"]) for index in range(len(self))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Arrays as `SFTGraphProcessor.item` returns them; those without flips are shared, so leave them unchanged."""
        index = position(index, len(self), "graphs")
        item = dict(self._item(index))
        num_vectors = self.processor.laplacian_vectors
        if self.flip_signs and num_vectors > 0:
            rng = np.random.default_rng((self.seed, self.epoch, index))
            fixed, vectors = np.split(item["node_encodings"], [-num_vectors], axis=1)
            item["node_encodings"] = np.concatenate([fixed, flip_signs(vectors, rng)], axis=1)
        return item

    def _item(self, index: int) -> Mapping[str, Any]:
        if index not in self._cache:
            try:
                self._cache[index] = self.processor.item(self._rows[index])
            except ValueError as error:
                raise ValueError(f"Row {index}: {error}") from error
        return self._cache[index]
