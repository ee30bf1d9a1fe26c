"""Which rows a recipe trains, validates and tests on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.training.tasks.task import rows_of_split
from tiny_recipes import tiny_recipe


def rows(num_rows: int, start: int = 0) -> Dataset:
    features = Features({"number": Value("int64"), "label": ClassLabel(names=["a", "b", "c"])})
    numbers = range(start, start + num_rows)
    return Dataset.from_dict({"number": list(numbers), "label": [n % 3 for n in numbers]}, features=features)


def numbers_of(splits: Any, split: str, *overrides: str) -> list[int]:
    return list(rows_of_split(splits, tiny_recipe(*overrides), split)["number"])


@settings(max_examples=30, deadline=None)
@given(st.integers(30, 90), st.sampled_from((0.07, 0.2, 0.5)), st.sampled_from((0.1, 0.35, 0.9)), st.integers(0, 5))
def test_a_fraction_of_the_training_rows(num_rows: int, held_out: float, kept: float, seed: int) -> None:
    splits = {"train": rows(num_rows), "test": rows(7, 1000)}
    overrides = (f"dataset.validation_fraction={held_out}", f"seed={seed}")
    part = (*overrides, f"dataset.train_fraction={kept}")
    train, validation = (numbers_of(splits, split, *overrides) for split in ("train", "validation"))
    few = numbers_of(splits, "train", *part)
    # What is held out does not depend on it, so that models of several fractions are compared on the same rows.
    assert numbers_of(splits, "validation", *part) == validation and numbers_of(splits, "test", *part)[0] == 1000
    assert sorted(train + validation) == list(range(num_rows)) and set(few) <= set(train)
    # Each of the three classes leaves at least one row out.
    assert few == sorted(few) and -2 <= len(few) - kept * len(train) < 1
    shares = Counter(n % 3 for n in few)
    assert max(shares.values()) - min(shares[label] for label in range(3)) <= 2
    assert few == numbers_of(splits, "train", *part)


def test_official_validation_rows_are_kept() -> None:
    splits = {"train": rows(60), "validation": rows(9, 500), "test": rows(7, 1000)}
    assert numbers_of(splits, "train") == list(range(60)) and numbers_of(splits, "validation")[0] == 500
    few = numbers_of(splits, "train", "dataset.train_fraction=0.1")
    assert len(few) == 6 and few != numbers_of(splits, "train", "dataset.train_fraction=0.1", "seed=1")
    assert len(numbers_of(splits, "validation", "dataset.train_fraction=0.1")) == 9


def test_validation_rows_of_their_own_need_no_training_rows() -> None:
    assert numbers_of({"validation": rows(9, 500)}, "validation") == list(range(500, 509))


def test_without_validation_rows() -> None:
    splits = {"train": rows(60), "validation": rows(9, 500)}
    overrides = ("dataset.validation_fraction=0", "training.eval_strategy=no", "dataset.train_fraction=0.5")
    assert len(numbers_of(splits, "train", *overrides)) == 30
    assert rows_of_split(splits, tiny_recipe(*overrides), "validation") is None
    with pytest.raises(ValueError, match="no test split"):
        rows_of_split(splits, tiny_recipe(*overrides), "test")
