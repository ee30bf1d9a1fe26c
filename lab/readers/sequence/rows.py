"""The schema that all readers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset, Features


def text_features(class_names: Sequence[str]) -> Features:
    """The columns `text` and `label`."""
    from datasets import ClassLabel, Features, Value

    return Features({"text": Value("string"), "label": ClassLabel(names=list(class_names))})


def text_rows(texts: Sequence[str], labels: Sequence[int], class_names: Sequence[str]) -> Dataset:
    """Rows of `text` and `label`, in memory."""
    from datasets import Dataset

    return Dataset.from_dict({"text": list(texts), "label": list(labels)}, features=text_features(class_names))


def value_features(length: int | None, class_names: Sequence[str]) -> Features:
    """The columns `values` (length, 1) float32 and `label`; `length` is None if it differs from row to row."""
    from datasets import Array2D, ClassLabel, Features

    return Features({"values": Array2D((length, 1), "float32"), "label": ClassLabel(names=list(class_names))})


def gray_values(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The gray levels (height, width) from 0 to 255 as a sequence (height * width, 1) from 0 to 1, row by row."""
    return (image.reshape(-1, 1) / np.float32(255)).astype(np.float32, copy=False)
