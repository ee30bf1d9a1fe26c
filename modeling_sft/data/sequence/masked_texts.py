"""Data sets for masked language modeling: texts packed into blocks, and masks by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerBase

from ...hub.values import is_number, require_integer
from ..items import EpochDataset, position, read_column
from .datasets import SequenceStore, id_type

if TYPE_CHECKING:
    from datasets import Dataset as RowDataset
    from datasets import IterableDataset as RowStream


class ChunkedText(torch.utils.data.Dataset):
    """Map-style data set of blocks of `length` tokens, which are all computed at the start and kept in memory.

    The texts follow each other in order with one separator between two, and are cut every `length` tokens, wherever
    that is. The last block may be shorter; a single token left over is dropped. Texts without tokens are passed over.

    `EpochMasks` draws masks for training, anew in each epoch; those of `FixedMasks` stay.

    Args:
        rows: rows with `text`: a `datasets.Dataset` or any sequence of mappings.
        tokenizer: has a separator token.
        length: how many tokens make a block, at least 2.

    Raises:
        ValueError: for a bad `length`, a tokenizer without separator, rows without `text` or less than 2 tokens.
    """

    def __init__(
        self, rows: RowDataset | Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, length: int
    ) -> None:
        _check(tokenizer, length)
        if not hasattr(rows, "__len__"):
            raise ValueError("rows has no length; use StreamedText for rows that are streamed.")
        texts = read_column(rows, "text") if len(rows) > 0 else ()
        blocks = [np.array(block, dtype=id_type(tokenizer)) for block in _blocks(texts, tokenizer, length)]
        if not blocks:
            raise ValueError("rows has less than 2 tokens; pass at least one text of 2 tokens.")
        self.tokenizer = tokenizer
        self._blocks = SequenceStore(blocks)

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each block."""
        return self._blocks.lengths.tolist()

    def __len__(self) -> int:
        return len(self._blocks.lengths)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        """One block: `input_ids` (length,) int64 and `special_tokens_mask` (length,) int64, 1 = not to be masked."""
        return _block_item(self._blocks[position(index, len(self), "blocks")], self.tokenizer)


class StreamedText(torch.utils.data.IterableDataset):
    """The items of `ChunkedText`, made one after the other from rows that are read once in each epoch.

    With several workers, each packs its own share of the rows: those that a `datasets.IterableDataset` gives to the
    worker, every n-th row of other streams.

    Args:
        rows: rows with `text`: a `datasets.IterableDataset`, or anything else that can be iterated over repeatedly.
        tokenizer: has a separator token.
        length: how many tokens make a block, at least 2.

    Raises:
        ValueError: for a bad `length`, a tokenizer without separator, or rows that can be read only once; when
            iterating, for a row without `text`.
    """

    def __init__(
        self, rows: RowStream | Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, length: int
    ) -> None:
        _check(tokenizer, length)
        if isinstance(rows, Iterator):
            raise ValueError("rows can be read only once; pass a data set or a list, from which each epoch starts.")
        self._rows: Any = rows
        self.tokenizer = tokenizer
        self.length = length

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to the rows, which a `datasets.IterableDataset` shuffles anew for each."""
        if hasattr(self._rows, "set_epoch"):
            self._rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        for block in _blocks(self._texts(), self.tokenizer, self.length):
            yield _block_item(np.array(block, dtype=np.int64), self.tokenizer)

    def _texts(self) -> Iterator[str]:
        worker = torch.utils.data.get_worker_info()
        rows = self._rows
        # Data sets that know PyTorch's workers have shared the rows out already.
        if worker is not None and not isinstance(rows, torch.utils.data.IterableDataset):
            rows = islice(rows, worker.id, None, worker.num_workers)
        for row in rows:
            if "text" not in row:
                raise ValueError(f"rows has no column 'text'; its columns are {sorted(row)}.")
            yield row["text"]


@dataclass(frozen=True)
class TokenMasking:
    """How tokens are chosen that a model shall predict.

    Args:
        mlm_probability: the probability of each token to be chosen.
        mean_span_length: with 1, tokens are chosen one by one. Above, runs of tokens are chosen, whose lengths are
            geometrically distributed with this mean (as in SpanBERT, arXiv 1907.10529, section 3.1, of tokens in place
            of words). Single bytes and characters are easily guessed from their neighbours; runs of them are about a
            word.

    Raises:
        ValueError: for a probability outside [0, 1], a length that is no number of at least 1, or spans so likely that
            there is not one token between two: `mlm_probability` must then be below `mean_span_length /
            (mean_span_length + 1)`.
    """

    mlm_probability: float = 0.15
    mean_span_length: float = 1.0

    def __post_init__(self) -> None:
        if not is_number(self.mlm_probability) or not 0 <= self.mlm_probability <= 1:
            raise ValueError(f"mlm_probability must be a number from 0 to 1; got {self.mlm_probability!r}.")
        if not is_number(self.mean_span_length) or not 1 <= self.mean_span_length < math.inf:
            raise ValueError(f"mean_span_length must be a number of at least 1; got {self.mean_span_length!r}.")
        highest = self.mean_span_length / (self.mean_span_length + 1)
        if self.mean_span_length > 1 and not 0 < self.mlm_probability < highest:
            raise ValueError(
                f"mlm_probability must be above 0 and below {highest:.3g} for spans of {self.mean_span_length:g} "
                f"tokens with tokens between them; got {self.mlm_probability!r}."
            )

    def draw_spans(self, length: int, generator: torch.Generator) -> torch.Tensor:
        """Draw which of `length` tokens are chosen, with `mean_span_length` above 1: `(length,)` bool."""
        mean_gap = self.mean_span_length * (1 - self.mlm_probability) / self.mlm_probability
        # Spans and gaps take turns, and as geometric lengths have no memory, may begin anywhere, hence at the start.
        runs = torch.empty(length // 2 + 1, 2)
        runs[:, 0].geometric_(1 / self.mean_span_length, generator=generator)
        runs[:, 1].geometric_(1 / mean_gap, generator=generator)
        is_span = torch.tensor([True, False])
        if torch.rand((), generator=generator) >= self.mlm_probability:
            runs, is_span = runs.flip(1), is_span.flip(0)
        return is_span.repeat(len(runs)).repeat_interleave(runs.flatten().clamp(max=length).long())[:length]


class FixedMasks(torch.utils.data.Dataset):
    """Items of a data set with tokens masked for good, so that evaluations can be compared.

    The mask of item i depends on (seed, i) alone: not on the batch, the worker, or what was drawn before. Tokens are
    masked as by Transformers' `DataCollatorForLanguageModeling`: of those chosen, 80 % become <mask>, 10 % any token
    and 10 % stay. `SequenceCollator` joins the items.

    Args:
        dataset: map-style, with `input_ids` (L,) and, optionally, `special_tokens_mask` (L,) in its items:
            `ChunkedText`, or `PreparedSequences` with `target=None`.
        tokenizer: has a mask token.
        seed: an integer of at least 0.
        masking: how tokens are chosen; None for one by one, each with a probability of 0.15.

    Raises:
        ValueError: for a bad `seed`, or a tokenizer without mask token.
    """

    def __init__(
        self, dataset: Any, tokenizer: PreTrainedTokenizerBase, seed: int = 0, masking: TokenMasking | None = None
    ) -> None:
        require_integer("seed", seed, 0)
        self.masking = TokenMasking() if masking is None else masking
        # The collator draws single tokens itself; of spans it shall mask all that it is given.
        probability = self.masking.mlm_probability if self.masking.mean_span_length == 1 else 1.0
        self._collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability)
        self._dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        """One item: `input_ids` (L,) int64 and `labels` (L,) int64, -100 for the tokens that were not chosen."""
        index = position(index, len(self), "items")
        item = self._dataset[index]
        ids = torch.as_tensor(item["input_ids"], dtype=torch.int64)
        special = item.get("special_tokens_mask")
        unchosen = None if special is None else torch.as_tensor(special).bool()
        state = np.random.SeedSequence(self._entropy(index)).generate_state(1, np.uint32)
        self._collator.generator = torch.Generator().manual_seed(int(state[0]))
        if self.masking.mean_span_length > 1:
            spans = self.masking.draw_spans(len(ids), self._collator.generator)
            unchosen = ~spans if unchosen is None else unchosen | ~spans
        masked, labels = self._collator.torch_mask_tokens(
            ids[None], special_tokens_mask=None if unchosen is None else unchosen[None]
        )
        # Generators cannot be sent to worker processes.
        self._collator.generator = None
        return {"input_ids": masked[0].numpy(), "labels": labels[0].numpy()}

    def _entropy(self, index: int) -> tuple[int, ...]:
        return self.seed, index


class EpochMasks(FixedMasks, EpochDataset):
    """`FixedMasks` that change from epoch to epoch, for training: functions of (seed, epoch, i).

    Unlike masks drawn by a collator they do not depend on what else is drawn, so that a resumed run sees those of an
    uninterrupted one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        FixedMasks.__init__(self, *args, **kwargs)
        EpochDataset.__init__(self)

    def _entropy(self, index: int) -> tuple[int, ...]:
        # Not 0, which would give the masks of `FixedMasks`.
        return self.seed, index, 1 + self.epoch


def _check(tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    require_integer("length", length, 2)
    if tokenizer.sep_token_id is None:
        raise ValueError("tokenizer has no separator token; set its sep_token.")


def _blocks(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[list[int]]:
    pending: list[int] = []
    first = True
    for text in texts:
        # Not verbose: it warns of texts above the model's length, which here are cut.
        ids = tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        if not ids:
            continue
        if not first:
            pending.append(tokenizer.sep_token_id)
        first = False
        pending.extend(ids)
        full = len(pending) // length * length
        for start in range(0, full, length):
            yield pending[start : start + length]
        del pending[:full]
    if len(pending) >= 2:
        yield pending


def _block_item(ids: NDArray[np.int64], tokenizer: PreTrainedTokenizerBase) -> dict[str, NDArray[np.int64]]:
    return {"input_ids": ids, "special_tokens_mask": np.isin(ids, tokenizer.all_special_ids).astype(np.int64)}
