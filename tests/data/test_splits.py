"""Splits are complete, a pure function of the seed, and stratified where there are classes."""

import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.data import stratified_indices, train_validation_split
from modeling_sft.data.splits import random_indices


@settings(max_examples=80, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_stratified_indices(counts, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if max(counts) == 1:
        with pytest.raises(ValueError, match="labels"):
            stratified_indices(labels, fraction, seed)
        return
    larger, smaller = stratified_indices(labels, fraction, seed)
    assert sorted([*larger, *smaller]) == list(range(len(labels)))
    assert (np.diff(larger) > 0).all() and (np.diff(smaller) > 0).all()
    available = sum(count - 1 for count in counts)
    assert len(smaller) == min(math.ceil(fraction * len(labels)), available)
    taken = np.bincount(labels[smaller], minlength=len(counts))
    assert (taken < counts).all()
    if min(counts) * (1 - fraction) >= 2:
        assert (np.abs(taken - np.array(counts) * fraction) < 1 + 1e-9).all()
    again = stratified_indices(labels, fraction, seed)
    np.testing.assert_array_equal(again[1], smaller)


def test_seeds_differ_and_are_stable():
    labels = np.repeat(np.arange(4), 25)
    smaller = stratified_indices(labels, 0.1, 0)[1]
    assert smaller.tolist() == [2, 5, 19, 32, 37, 39, 59, 67, 82, 96]
    assert smaller.tolist() != stratified_indices(labels, 0.1, 1)[1].tolist()


def test_a_class_of_one_row_stays_in_training():
    dataset = Dataset.from_dict({"row": list(range(11)), "label": [0] * 10 + [1]})
    train, validation = train_validation_split(dataset, 0.5, 0)
    assert train["label"][:].count(1) == 1 and 1 not in validation["label"][:]
    assert sorted(train["row"][:] + validation["row"][:]) == list(range(11))


@settings(max_examples=80, deadline=None)
@given(num_rows=st.integers(2, 200), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_random_indices(num_rows, fraction, seed):
    larger, smaller = random_indices(num_rows, fraction, seed)
    assert sorted([*larger, *smaller]) == list(range(num_rows))
    assert (np.diff(larger) > 0).all() and (np.diff(smaller) > 0).all()
    assert len(smaller) == min(math.ceil(fraction * num_rows), num_rows - 1)
    np.testing.assert_array_equal(random_indices(num_rows, fraction, seed)[1], smaller)


LABELS_WITHOUT_CLASSES = {
    "regression": (Value("float32"), lambda row: float(row % 2)),
    "several labels": (List(Value("float32")), lambda row: [float(row % 2), 1.0]),
    "several classes": (List(ClassLabel(names=["a", "b"])), lambda row: [row % 2] * (row % 3)),
}


@pytest.mark.parametrize("name", [*LABELS_WITHOUT_CLASSES, "absent"])
def test_rows_without_classes_are_split_by_a_permutation(name):
    columns, features = {"row": list(range(40))}, {"row": Value("int64")}
    if name != "absent":
        features["label"], label_of = LABELS_WITHOUT_CLASSES[name]
        columns["label"] = [label_of(row) for row in range(40)]
    dataset = Dataset.from_dict(columns, features=Features(features))
    train, validation = train_validation_split(dataset, 0.2, 0)
    # Pinned: the split of a published run must not change.
    assert validation["row"][:] == [4, 10, 11, 15, 20, 22, 25, 28]
    assert sorted(train["row"][:] + validation["row"][:]) == list(range(40))
    assert train.features == dataset.features
    assert train_validation_split(dataset, 0.2, 1)[1]["row"][:] != validation["row"][:]


def test_classes_are_stratified_whatever_their_type():
    for feature in (Value("int8"), Value("int64"), ClassLabel(names=["a", "b"])):
        features = Features({"label": feature})
        dataset = Dataset.from_dict({"label": [0] * 90 + [1] * 10}, features=features)
        for seed in range(5):
            assert sum(train_validation_split(dataset, 0.2, seed)[1]["label"][:]) == 2


def test_bad_arguments_are_named():
    dataset = Dataset.from_dict({"row": [0, 1], "label": [0, 0]})
    for fraction in (0.0, 1.0, -0.1, 2, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            train_validation_split(dataset, fraction, 0)
    with pytest.raises(ValueError, match="seed"):
        train_validation_split(dataset, 0.5, -1)
    with pytest.raises(ValueError, match="fraction"):
        train_validation_split(dataset.remove_columns("label"), 1.0, 0)
    with pytest.raises(ValueError, match="seed"):
        train_validation_split(dataset.remove_columns("label"), 0.5, 2**32)
    with pytest.raises(ValueError, match="num_rows must be at least 2"):
        train_validation_split(dataset.remove_columns("label").select([0]), 0.5, 0)
    with pytest.raises(ValueError, match="labels must be one integer"):
        train_validation_split(Dataset.from_dict({"label": ["a", "b", "a"]}), 0.5, 0)
    with pytest.raises(ValueError, match="labels must be one integer"):
        stratified_indices([0.5, 1.5], 0.5, 0)
