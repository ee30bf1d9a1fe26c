"""Hashes in wrapping integer arithmetic, against Python's integers of any size."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modeling_sft.nn.hashing import POLYNOMIAL, buckets, mix, occurrences, run_hashes

LARGEST = 2**63
longs = st.integers(-LARGEST, LARGEST - 1)


def wrapped(number: int) -> int:
    """The signed integer of 64 bits that is equal to a number modulo 2^64."""
    return (number + LARGEST) % 2**64 - LARGEST


@settings(max_examples=50, deadline=None)
@given(st.lists(longs, min_size=1, max_size=20), st.lists(st.integers(0, 19), min_size=20, max_size=20))
def test_run_hashes_are_polynomials(tokens: list[int], starts: list[int]) -> None:
    starts = [min(start, place + 1) for place, start in enumerate(starts[: len(tokens)])]
    found = run_hashes(torch.tensor([tokens]), torch.tensor([starts])[..., None])[0, :, 0].tolist()
    for place, start in enumerate(starts):
        run = range(start, place + 1)
        assert found[place] == wrapped(sum(tokens[j] * POLYNOMIAL ** (place - j) for j in run))


def test_powers_of_long_rows_are_exact() -> None:
    tokens = torch.zeros(1, 5000, dtype=torch.long)
    tokens[0, 3] = 1
    found = run_hashes(tokens, torch.zeros(1, 5000, 1, dtype=torch.long))[0, :, 0].tolist()
    for place in (3, 4, 1026, 1027, 1028, 2051, 4999):
        assert found[place] == wrapped(pow(POLYNOMIAL, place - 3, 2**64))


@settings(max_examples=50, deadline=None)
@given(st.sets(longs, min_size=2, max_size=50), st.integers(0, 2**31))
def test_mixing_is_one_to_one(numbers: set[int], seed: int) -> None:
    assert len(set(mix(torch.tensor(sorted(numbers)), seed).tolist())) == len(numbers)


@pytest.mark.parametrize("step", [1, 2**20, 2**40])
@pytest.mark.parametrize("count", [2, 64, 4096])
def test_buckets_of_regular_numbers_are_filled_evenly(step: int, count: int) -> None:
    found = torch.bincount(buckets(mix(torch.arange(16 * count) * step), count), minlength=count)
    assert len(found) == count
    # Poisson with a mean of 16: the largest of 4,096 lies below 48, and the variance is about 16.
    assert found.max() <= 48
    assert found.double().var() < 24


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_occurrences_count_each_id_whatever_the_order(row: list[tuple[int, bool]], random: object) -> None:
    def found(row: list[tuple[int, bool]]) -> list[tuple[int, int]]:
        ids, counted = (torch.tensor(column)[None, :, None] for column in zip(*row, strict=True))
        ids, rank = occurrences(ids, counted)
        return [(i, r) for i, r in zip(ids.flatten().tolist(), rank.flatten().tolist(), strict=True) if r > 0]

    counts = Counter(i for i, counted in row if counted)
    expected = [(i, rank) for i in sorted(counts) for rank in range(1, counts[i] + 1)]
    assert found(row) == expected
    random.shuffle(row)  # type: ignore[attr-defined]
    assert found(row) == expected


def test_hashes_are_the_same_compiled() -> None:
    numbers = torch.tensor([[0, 1, -1, 2**40, -(2**63), 2**63 - 1]])

    def hashes(x: Tensor) -> Tensor:
        return torch.cat([mix(x), buckets(x, 1024), run_hashes(x, torch.zeros_like(x)[..., None])[..., 0]])

    torch.testing.assert_close(torch.compile(hashes, fullgraph=True, backend="aot_eager")(numbers), hashes(numbers))
