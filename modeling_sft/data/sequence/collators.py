"""The collator of sequences: lists of items to batches of padded tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ...encoder.losses import check_labels
from ...hub.values import require_integer
from ...nn.checks import IGNORED_LABEL
from .datasets import SequenceProcessor


class SequenceCollator:
    """Pads items of `PreparedSequences` at the right, to the longest sequence of the batch.

    Args:
        processor: the tokenizer, whose <pad> fills the padding, or the feature extractor, whose `padding_value` does.
        pad_to_multiple_of: pad further, to a multiple of this many tokens; None does not.
        config: of a model that classifies or predicts numbers; with it, values of labels are checked, which models do
            on the CPU alone.

    Raises:
        ValueError: for a tokenizer without a padding token, or a bad `pad_to_multiple_of`.
    """

    def __init__(
        self,
        processor: SequenceProcessor,
        pad_to_multiple_of: int | None = None,
        config: PreTrainedConfig | None = None,
    ) -> None:
        require_integer("pad_to_multiple_of", pad_to_multiple_of, 1, or_none="for no further padding")
        if isinstance(processor, PreTrainedTokenizerBase):
            if processor.pad_token_id is None:
                raise ValueError("processor has no padding token; set the tokenizer's pad_token.")
            self._padding = {"input_ids": processor.pad_token_id, "pair_input_ids": processor.pad_token_id}
        else:
            self._padding = {"input_features": processor.padding_value}
        self.processor = processor
        self.pad_to_multiple_of = pad_to_multiple_of
        self.config = config

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Joins items.

        Args:
            items: each with `input_ids` (L,) and, optionally, `pair_input_ids` (M,), or with `input_features` (L, F);
                and with `labels` for all or for none: an integer, a float, a vector of floats, or one integer per
                token (L,). Other keys are left out.

        Returns:
            `input_ids` (B, N) int64 with `attention_mask` (B, N) int64, 1 = token and 0 = padding; for pairs also
            `pair_input_ids` and `pair_attention_mask` (B, P) int64; or `input_features` (B, N, F) float32 with
            `attention_mask`. Where there are some, `labels` (B,) or (B, C), int64 for integers and float32 for floats,
            or (B, N) int64 with -100 at the padding for one per token.

        Raises:
            ValueError: for an empty list, items that differ in their inputs, some without labels, or labels that
                differ in shape or that the model cannot learn.
        """
        if len(items) == 0:
            raise ValueError("items is empty; pass at least one item.")
        names = [name for name in self._padding if name in items[0]]
        if not names:
            raise ValueError(f"items[0] has none of {sorted(self._padding)}; its keys are {sorted(items[0])}.")
        batch: dict[str, torch.Tensor] = {}
        for name in names:
            arrays = self._gather(items, name)
            batch[name] = torch.from_numpy(self._padded(arrays, self._padding[name]))
            lengths = np.array([len(array) for array in arrays])
            mask = np.arange(batch[name].shape[1]) < lengths[:, None]
            prefix = "pair_" if name.startswith("pair_") else ""
            batch[f"{prefix}attention_mask"] = torch.from_numpy(mask.astype(np.int64))
        labels = self._gather(items, "labels") if any("labels" in item for item in items) else []
        if labels:
            inputs = [item[names[0]] for item in items]
            per_token = all(
                label.ndim == 1 and label.dtype.kind == "i" and len(label) == len(tokens)
                for label, tokens in zip(labels, inputs)
            )
            if not per_token and len({label.shape for label in labels}) > 1:
                raise ValueError(f"labels differ in shape: {sorted({label.shape for label in labels})}.")
            joined = torch.from_numpy(self._padded(labels, IGNORED_LABEL) if per_token else np.stack(labels))
            batch["labels"] = joined.float() if joined.is_floating_point() else joined.long()
            if self.config is not None:
                check_labels(batch["labels"], self.config)
        return batch

    def _gather(self, items: Sequence[Mapping[str, Any]], name: str) -> list[NDArray[Any]]:
        for position, item in enumerate(items):
            if name not in item:
                raise ValueError(f"items[{position}] has no {name} and others have; give all or none.")
        return [np.asarray(item[name]) for item in items]

    def _padded(self, arrays: Sequence[NDArray[Any]], padding: float) -> NDArray[Any]:
        """(B, N) int64 for integers, (B, N, F) float32 for vectors."""
        if len({array.shape[1:] for array in arrays}) > 1:
            raise ValueError(f"input_features differ in width: {sorted({array.shape[1:] for array in arrays})}.")
        multiple = self.pad_to_multiple_of or 1
        longest = -(-max(len(array) for array in arrays) // multiple) * multiple
        dtype = np.float32 if arrays[0].dtype.kind == "f" else np.int64
        padded = np.full((len(arrays), longest, *arrays[0].shape[1:]), padding, dtype=dtype)
        for row, array in enumerate(arrays):
            padded[row, : len(array)] = array
        return padded
