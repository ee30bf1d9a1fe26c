"""Data sets of sequences as PyTorch sees them: rows run through the tokenizer or feature extractor once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ...hub.values import require_integer
from ...sequence.feature_extraction import SFTSequenceFeatureExtractor
from ..items import position, read_column

if TYPE_CHECKING:
    from datasets import Dataset as RowDataset

SequenceProcessor = PreTrainedTokenizerBase | SFTSequenceFeatureExtractor

# A tokenizer's results take many times the memory of the ids in them.
TEXTS_AT_ONCE = 256


class PreparedSequences(torch.utils.data.Dataset):
    """Map-style data set of model inputs, which are all computed at the start and kept in memory.

    Inputs are of type int16 where the vocabulary allows, else int32, or float32. All are in one array each, so that
    forked worker processes share them.

    Transformers' `Trainer` measures the items itself for `train_sampling_strategy="group_by_length"`: it reads
    `length_column_name` of a `datasets.Dataset` alone, and of other data sets the length of the first of the
    `model_input_names` of its `processing_class` in each item.

    Args:
        rows: rows with `text`, or `values` (L, F) for a feature extractor, `label` and, optionally, `text_pair`: a
            `datasets.Dataset` or any sequence of mappings.
        processor: a tokenizer or an `SFTSequenceFeatureExtractor`.
        max_length: how many tokens of each sequence to keep, from its beginning; None leaves it to the processor's own
            limit.
        target: `label`, the column to predict: integers, floats, or vectors of floats; None leaves labels out.
        pair: give `text_pair` as a sequence of its own. False joins it to the text the way the tokenizer joins pairs.

    Raises:
        ValueError: for no rows, a missing column, a bad argument, labels that are no numbers, and, with the number of
            the row, for an empty text, one without tokens, or values that the feature extractor refuses.
    """

    def __init__(
        self,
        rows: RowDataset | Sequence[Mapping[str, Any]],
        processor: SequenceProcessor,
        max_length: int | None = None,
        target: Literal["label"] | None = "label",
        pair: bool = False,
    ) -> None:
        if target not in ("label", None):
            raise ValueError(f"target must be 'label' or None; got {target!r}.")
        require_integer("max_length", max_length, 1, or_none="for the processor's own limit")
        if not hasattr(rows, "__len__"):
            raise ValueError("rows has no length; use StreamedText for rows that are streamed.")
        if len(rows) == 0:
            raise ValueError("rows is empty; pass at least one row.")
        self.processor = processor
        self._num_rows = len(rows)
        self._inputs: dict[str, SequenceStore] = {}
        if isinstance(processor, PreTrainedTokenizerBase):
            texts = _texts(rows, "text")
            names = getattr(rows, "column_names", None) or rows[0]
            seconds = _texts(rows, "text_pair") if pair or "text_pair" in names else None
            joined = None if pair else seconds
            self._inputs["input_ids"] = _tokenized(processor, texts, joined, max_length, "text")
            if pair and seconds is not None:
                self._inputs["pair_input_ids"] = _tokenized(processor, seconds, None, max_length, "text_pair")
        else:
            if pair:
                raise ValueError("pair=True needs texts and a tokenizer; got a feature extractor.")
            self._inputs["input_features"] = _extracted(processor, rows, max_length)
        self._labels = None if target is None else _labels(read_column(rows, target))

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each item; of the longer text if a pair is given as two sequences."""
        longest: NDArray[np.int64] = np.max([sequences.lengths for sequences in self._inputs.values()], axis=0)
        return longest.tolist()

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One item.

        Returns:
            `input_ids` (L,) int64 and, with `pair`, `pair_input_ids` (M,) int64; or `input_features` (L, F) float32;
            and `labels`, an int64 or float32 scalar or a float32 vector, unless `target` is None.
        """
        index = position(index, len(self), "sequences")
        item: dict[str, Any] = {name: sequences[index] for name, sequences in self._inputs.items()}
        if self._labels is not None:
            item["labels"] = self._labels[index]
        return item


class SequenceStore:
    """Sequences one after another in a single array."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.lengths = np.array([len(array) for array in arrays], dtype=np.int64)
        self._ends = np.cumsum(self.lengths)
        self._values = np.concatenate(arrays)

    def __getitem__(self, index: int) -> NDArray[Any]:
        piece = self._values[self._ends[index] - self.lengths[index] : self._ends[index]]
        return piece.astype(np.int64 if piece.dtype.kind == "i" else piece.dtype)


def id_type(tokenizer: PreTrainedTokenizerBase) -> type[np.signedinteger[Any]]:
    """The smallest integer type, int16 or int32, that holds all ids."""
    return np.int16 if len(tokenizer) <= np.iinfo(np.int16).max else np.int32


def _texts(rows: Any, name: str) -> list[str]:
    texts = list(read_column(rows, name))
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            found = "an empty string" if text == "" else type(text).__name__
            raise ValueError(f"Row {index}: {name} must be a text of at least one character; got {found}.")
    return texts


def _tokenized(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], pairs: list[str] | None, max_length: int | None, name: str
) -> SequenceStore:
    dtype = id_type(tokenizer)
    limit = tokenizer.model_max_length if max_length is None else max_length
    # A tokenizer without a limit has an enormous one, for which Transformers warns when asked to truncate.
    limits = {"truncation": True, "max_length": limit} if limit < VERY_LARGE_INTEGER else {}
    arrays = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        chunk = slice(start, start + TEXTS_AT_ONCE)
        second = None if pairs is None else pairs[chunk]
        encoded = tokenizer(texts[chunk], second, return_attention_mask=False, return_token_type_ids=False, **limits)
        for offset, ids in enumerate(encoded["input_ids"]):
            if not ids:
                raise ValueError(f"Row {start + offset}: {name} has no tokens; leave the row out.")
            arrays.append(np.array(ids, dtype=dtype))
    return SequenceStore(arrays)


def _extracted(extractor: SFTSequenceFeatureExtractor, rows: Any, max_length: int | None) -> SequenceStore:
    arrays = []
    for index, sequence in enumerate(read_column(rows, "values", "numpy")):
        try:
            # A copy: a slice would keep the whole sequence in memory.
            arrays.append(extractor.preprocess(sequence)[:max_length].copy())
        except ValueError as error:
            raise ValueError(f"Row {index}: {error}") from error
    return SequenceStore(arrays)


def _labels(column: Any) -> NDArray[Any]:
    entries = [np.asarray(label) for label in column]
    try:
        labels = np.array(entries)
    except ValueError as error:
        raise ValueError("label must have the same number of entries in all rows.") from error
    if labels.dtype.kind not in "biuf":
        raise ValueError("label must be numbers in all rows; encode names as integers, for example by ClassLabel.")
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
