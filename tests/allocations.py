"""Records the tensors that PyTorch allocates inside a block: their largest size and the peak of what is alive."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationRecorder(TorchDispatchMode):
    """Counts the bytes of new storages; views and tensors made before the block are free.

    Attributes:
        largest: bytes of the largest storage.
        peak: largest number of bytes alive at once.
        by_operation: largest storage of each operation, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.peak = 0
        self.by_operation: dict[str, int] = {}
        self._alive = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def _release(self, key: int, size: int) -> None:
        self._alive -= size
        self._known.pop(key, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {
            leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            key, size = storage.data_ptr(), storage.nbytes()
            if key in inputs or key in self._known or size == 0:
                continue
            self._known[key] = weakref.ref(storage)
            weakref.finalize(storage, self._release, key, size)
            self._alive += size
            self.peak = max(self.peak, self._alive)
            self.largest = max(self.largest, size)
            self.by_operation[str(func)] = max(self.by_operation.get(str(func), 0), size)
        return result
