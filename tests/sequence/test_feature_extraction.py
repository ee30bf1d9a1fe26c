"""The feature extractor of sequences: shapes, normalization, padding, checks and what is saved."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorWithPadding

from modeling_sft.sequence.feature_extraction import SFTSequenceFeatureExtractor


def sequences(lengths, num_features, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, num_features)) for length in lengths]


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 3), st.sampled_from([0.0, -2.5]))
def test_batches_are_padded_at_the_right(lengths, num_features, padding_value):
    extractor = SFTSequenceFeatureExtractor(num_features, padding_value=padding_value)
    values = sequences(lengths, num_features)
    batch = extractor(values, return_tensors="pt")
    features, mask = batch["input_features"], batch["attention_mask"]
    assert features.shape == (len(lengths), max(lengths), num_features) and features.dtype == torch.float32
    assert mask.dtype == torch.int64 and mask.sum(1).tolist() == lengths
    for row, value in enumerate(values):
        assert np.array_equal(features[row, : len(value)], value.astype(np.float32))
        assert (features[row, len(value) :] == padding_value).all() and (mask[row, len(value) :] == 0).all()


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([0.5, 1, 2], (1, 3, 1)),
        (np.arange(3), (1, 3, 1)),
        (torch.zeros(3, 1), (1, 3, 1)),
        ([[1, 2], [3.0]], (2, 2, 1)),
        (np.zeros((4, 3, 1), np.float16), (4, 3, 1)),
        ([torch.zeros(3), np.zeros((2, 1))], (2, 3, 1)),
    ],
)
def test_forms_of_a_batch(values, shape):
    batch = SFTSequenceFeatureExtractor()(values)
    assert batch["input_features"].shape == shape and batch["input_features"].dtype == np.float32
    assert batch["attention_mask"].shape == shape[:2]


def test_normalization_cuts_and_leaves_the_padding_alone():
    extractor = SFTSequenceFeatureExtractor(2, mean=[1, -1], std=[2, 0.5], max_length=3)
    values = [np.array([[3.0, 0.0]] * 5), np.array([[1.0, -1.0]])]
    features = extractor(values)["input_features"]
    assert features.tolist() == [[[1, 2]] * 3, [[0, 0]] * 3]
    assert values[0].tolist() == [[3, 0]] * 5
    assert extractor.preprocess(values[0]).tolist() == [[1, 2]] * 3


@pytest.mark.parametrize("num_features", [1, 3])
def test_what_is_saved_is_loaded(tmp_path, num_features):
    extractor = SFTSequenceFeatureExtractor(num_features, [0.25] * num_features, [3.0] * num_features, max_length=7)
    extractor.save_pretrained(tmp_path)
    loaded = SFTSequenceFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    values = sequences([9, 4], num_features)
    for name, value in extractor(values).items():
        assert np.array_equal(loaded(values)[name], value)


def test_saved_code_loads_without_the_package(tmp_path, monkeypatch):
    SFTSequenceFeatureExtractor(2, mean=[1, 2]).save_pretrained(tmp_path)
    assert (tmp_path / "feature_extraction_sft.py").is_file()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    code = (
        "import sys; from transformers import AutoFeatureExtractor; sys.modules['modeling_sft'] = None\n"
        f"extractor = AutoFeatureExtractor.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)\n"
        "assert type(extractor).__module__.startswith('transformers_modules.')\n"
        "assert extractor([[[1, 2], [2, 4]]])['input_features'].tolist() == [[[0, 0], [1, 2]]]"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("num_features", [1, 2])
def test_the_collator_of_transformers_pads_the_items(num_features):
    extractor = SFTSequenceFeatureExtractor(num_features)
    items = [{"input_features": value, "label": 1} for value in sequences([3, 5], num_features)]
    batch = DataCollatorWithPadding(extractor, pad_to_multiple_of=4)(items)
    assert batch["input_features"].shape == (2, 8, num_features)
    assert batch["attention_mask"].tolist() == [[1] * 3 + [0] * 5, [1] * 5 + [0] * 3]
    assert batch["labels"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "values is empty"),
        (np.zeros((0, 2)), "length 0"),
        ([np.zeros((3, 2)), np.zeros((0, 2))], "Sequence 1 of the batch: .*length 0"),
        (np.zeros((3, 4)), r"shape \(3, 4\); expected \(L, 2\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((1, 2, 3, 2)), r"shape \(1, 2, 3, 2\)"),
        (np.array([[1.0, np.nan]]), "finite"),
        (np.array([[1.0, np.inf]]), "finite"),
        (np.array([[1.0, 1e300]]), "finite"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.array([[1j, 0]]), "real numbers"),
        ([[[1, 2], [3]]], "rows differ in length"),
    ],
)
def test_values_that_are_no_sequences(values, message):
    with pytest.raises(ValueError, match=message):
        SFTSequenceFeatureExtractor(2)(values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_size": 0}, "feature_size"),
        ({"feature_size": 1.0}, "feature_size"),
        ({"max_length": 0}, "max_length"),
        ({"feature_size": 2, "mean": [1.0]}, "mean must be 2 finite numbers"),
        ({"mean": [np.nan]}, "mean must be 1 finite"),
        ({"std": ["a"]}, "std must be 1 finite"),
        ({"std": [0.0]}, "std must be positive"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        SFTSequenceFeatureExtractor(**arguments)
