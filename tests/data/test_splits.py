"""Splits are stratified, complete and a pure function of the seed."""

import math

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.data import stratified_indices, train_validation_split


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


def test_bad_arguments_are_named():
    dataset = Dataset.from_dict({"row": [0, 1], "label": [0, 0]})
    for fraction in (0.0, 1.0, -0.1, 2, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            train_validation_split(dataset, fraction, 0)
    with pytest.raises(ValueError, match="seed"):
        train_validation_split(dataset, 0.5, -1)
    with pytest.raises(ValueError, match="no column 'label'"):
        train_validation_split(dataset.remove_columns("label"), 0.5, 0)
    with pytest.raises(ValueError, match="labels must be one integer"):
        stratified_indices([0.5, 1.5], 0.5, 0)
