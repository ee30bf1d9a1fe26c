"""Data sets as PyTorch sees them: rows run through the processor, reproducibly and with a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ...hub.values import require_integer
from ...point_cloud.augmentation import PointCloudAugmentation
from ...point_cloud.processing import SFTPointCloudProcessor
from ..items import EpochDataset, position

if TYPE_CHECKING:
    from datasets import Dataset as RowDataset


class PreparedPointClouds(EpochDataset):
    """Map-style data set of processed clouds.

    Item i is a pure function of (seed, epoch, i) when augmenting, so that a resumed run sees what an uninterrupted one
    would, and of (seed, i) otherwise. Without augmentation items are those that augmentation at epoch 0 starts from:
    the same sub-sample of the same points. Sub-samples are drawn anew for each epoch when augmenting.

    Args:
        dataset: rows with `points` (n, 3) and, optionally, `normals` (n, 3), `point_features` (n, F) and `label`: a
            `datasets.Dataset` or any sequence of mappings.
        processor: prepares each row.
        augmentation: what to change at random; None changes nothing, and then items are computed once and kept in
            memory (once per worker process, if a DataLoader has workers).
        seed: an integer of at least 0.
        target: the column to predict: `label`, or `point_labels` (n,), and then `label` is the shape's category.

    Raises:
        ValueError: for a bad `seed` or `target`; when reading an item, for a row that the processor refuses (the row
            is named).
    """

    def __init__(
        self,
        dataset: RowDataset | Sequence[Mapping[str, Any]],
        processor: SFTPointCloudProcessor,
        augmentation: PointCloudAugmentation | None = None,
        seed: int = 0,
        target: Literal["label", "point_labels"] = "label",
    ) -> None:
        super().__init__()
        if target not in ("label", "point_labels"):
            raise ValueError(f"target must be 'label' or 'point_labels'; got {target!r}.")
        require_integer("seed", seed, 0)
        # Rows as NumPy arrays are read twice as fast as rows as lists, which take as long to convert again.
        self._rows: Any = dataset.with_format("numpy") if hasattr(dataset, "with_format") else dataset
        self.processor = processor
        self.augmentation = augmentation
        self.seed = seed
        self.target = target

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Arrays as `SFTPointCloudProcessor.preprocess` returns them, with the row's label.

        For `point_labels` these are sub-sampled as the points, and the row's `label`, if it has one, is `category`;
        else the row's `label`, if it has one, is `labels`.
        """
        index = position(index, len(self), "clouds")
        if self.augmentation is not None:
            return self._prepare(index, self.epoch)
        if index not in self._cache:
            self._cache[index] = self._prepare(index, 0)
        return dict(self._cache[index])

    def _prepare(self, index: int, epoch: int) -> dict[str, Any]:
        row = self._rows[index]
        if "points" not in row:
            raise ValueError(f"Row {index} has no column 'points'; its columns are {sorted(row)}.")
        try:
            item: dict[str, Any] = self.processor.preprocess(
                row["points"],
                row.get("normals"),
                row.get("point_features"),
                row.get("point_labels") if self.target == "point_labels" else None,
                augmentation=self.augmentation,
                seed=(self.seed, epoch, index),
            )
        except ValueError as error:
            raise ValueError(f"Row {index}: {error}") from error
        if row.get("label") is not None:
            item["category" if self.target == "point_labels" else "labels"] = row["label"]
        return item
