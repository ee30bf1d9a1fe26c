"""Random token sequences as model inputs, padded on either side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Batch = dict[str, Tensor]

VOCABULARY = 23
# Where a sequence starts, given the room that its padding takes.
SIDES: dict[str, Callable[[int], int]] = {"right": lambda room: 0, "left": lambda room: room, "both": lambda r: r // 2}


def random_sequence(size: int, seed: int) -> Batch:
    """One sequence of `size` tokens with their types, without batch dimension."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(0, VOCABULARY, (size,), generator=generator),
        "token_type_ids": torch.randint(0, 2, (size,), generator=generator),
    }


def pad(sequences: Sequence[Batch], length: int, side: str = "right", filler: int = 0) -> Batch:
    """A batch of sequences, padded to `length` tokens with `filler`, with its mask."""
    starts = [SIDES[side](length - len(sequence["input_ids"])) for sequence in sequences]
    batch: Batch = {"attention_mask": torch.zeros(len(sequences), length, dtype=torch.long)}
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        for name, value in sequence.items():
            shape = (len(sequences), length, *value.shape[1:])
            batch.setdefault(name, torch.full(shape, filler, dtype=value.dtype))[row, start : start + len(value)] = (
                value
            )
        batch["attention_mask"][row, start : start + len(value)] = 1
    return batch


def random_sequences(
    sizes: Sequence[int], seed: int = 0, length: int | None = None, side: str = "right", filler: int = 0
) -> Batch:
    """A padded batch of random sequences of the given sizes."""
    sequences = [random_sequence(size, 1000 * seed + row) for row, size in enumerate(sizes)]
    return pad(sequences, length or max(sizes), side, filler)
