"""The pickled batches of CIFAR-10, read without running any code that a pickle may name."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling_sft.data.files import damaged

# Pickles of arrays name these functions, in NumPy 1 and 2 and in Python 2, which wrote the official files.
ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that makes dictionaries, lists, strings, numbers and NumPy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return super().find_class(module, name)


def read_cifar_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 3, 32, 32) and labels (n,) of a batch.

    Raises:
        ValueError: if the file is not such a batch.
    """
    try:
        batch = ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    # A damaged pickle may raise almost any error, so catch them all.
    except Exception as error:
        raise damaged(path, f"it cannot be unpickled ({type(error).__name__}: {error})") from error
    if not isinstance(batch, dict) or not {"data", "labels"} <= set(batch):
        raise damaged(path, "it is no dictionary with data and labels")
    data, labels = batch["data"], batch["labels"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise damaged(path, "data is no array (images, 3072) of uint8")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise damaged(path, "labels is no list of integers")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)
