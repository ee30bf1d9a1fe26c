"""The collator of sequences: padding, masks and labels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft.data import SequenceCollator
from modeling_sft.sequence.feature_extraction import SFTSequenceFeatureExtractor
from modeling_sft.sequence.tokenization import byte_tokenizer

TOKENIZER = byte_tokenizer()
LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6)


@settings(deadline=None)
@given(LENGTHS, st.sampled_from([None, 1, 4, 7]))
def test_texts_are_padded_at_the_right_each_of_a_pair_by_itself(lengths, multiple):
    rng = np.random.default_rng(0)
    items = [
        {name: rng.integers(1, 260, length) for name, length in zip(("input_ids", "pair_input_ids"), pair)}
        for pair in lengths
    ]
    batch = SequenceCollator(TOKENIZER, multiple)(items)
    assert set(batch) == {"input_ids", "attention_mask", "pair_input_ids", "pair_attention_mask"}
    for number, prefix in enumerate(("", "pair_")):
        padded, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
        longest, step = max(pair[number] for pair in lengths), multiple or 1
        assert padded.dtype == mask.dtype == torch.int64 and padded.shape == mask.shape
        assert longest <= padded.shape[1] < longest + step and padded.shape[1] % step == 0
        for row, item in enumerate(items):
            tokens = item[f"{prefix}input_ids"]
            assert padded[row].tolist() == [*tokens, *[0] * (padded.shape[1] - len(tokens))]
            assert torch.equal(mask[row], (padded[row] != 0).long())


def test_the_batch_of_the_tokenizer_is_the_same():
    texts = ["abc", "ö ü", "x"]
    items = [{"input_ids": TOKENIZER(text)["input_ids"]} for text in texts]
    expected = TOKENIZER(texts, padding=True, return_tensors="pt")
    batch = SequenceCollator(TOKENIZER)(items)
    assert set(batch) == set(expected) and all(torch.equal(batch[name], expected[name]) for name in batch)


@pytest.mark.parametrize("padding_value", [0.0, -1.5])
def test_the_batch_of_the_feature_extractor_is_the_same(padding_value):
    extractor = SFTSequenceFeatureExtractor(3, padding_value=padding_value)
    values = [np.random.default_rng(length).normal(size=(length, 3)) for length in (2, 5)]
    batch = SequenceCollator(extractor)([{"input_features": extractor.preprocess(value)} for value in values])
    expected = extractor(values, return_tensors="pt")
    assert set(batch) == set(expected) and all(torch.equal(batch[name], expected[name]) for name in batch)
    assert batch["input_features"].dtype == torch.float32 and batch["attention_mask"].dtype == torch.int64


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([2, 0], torch.tensor([2, 0])),
        ([np.int16(2), np.int64(0)], torch.tensor([2, 0])),
        ([0.5, np.float64(1)], torch.tensor([0.5, 1.0])),
        ([np.array([1.0, 0.0]), np.array([0.0, 1.0])], torch.eye(2)),
        ([np.array([-100, 7]), np.array([8, -100, 9])], torch.tensor([[-100, 7, -100], [8, -100, 9]])),
    ],
)
def test_labels(labels, expected):
    items = [{"input_ids": np.ones(length, dtype=int), "labels": label} for length, label in zip((2, 3), labels)]
    result = SequenceCollator(TOKENIZER)(items)["labels"]
    assert result.dtype == expected.dtype and torch.equal(result, expected)
    padded = SequenceCollator(TOKENIZER, pad_to_multiple_of=4)(items)["labels"]
    assert padded.shape == ((2, 4) if expected.shape == (2, 3) else expected.shape)


def test_labels_are_optional_but_not_for_some():
    item = {"input_ids": [5, 6]}
    assert "labels" not in SequenceCollator(TOKENIZER)([item])
    with pytest.raises(ValueError, match=r"items\[1\] has no labels"):
        SequenceCollator(TOKENIZER)([{**item, "labels": 0}, item])
    with pytest.raises(ValueError, match="labels differ in shape"):
        SequenceCollator(TOKENIZER)([{**item, "labels": 0}, {**item, "labels": np.zeros(3)}])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "items is empty"),
        ([{"text": "a"}], r"items\[0\] has none of"),
        ([{"input_ids": [5], "pair_input_ids": [6]}, {"input_ids": [5]}], r"items\[1\] has no pair_input_ids"),
    ],
)
def test_items_that_are_refused(items, message):
    with pytest.raises(ValueError, match=message):
        SequenceCollator(TOKENIZER)(items)


def test_other_errors():
    with pytest.raises(ValueError, match="pad_to_multiple_of"):
        SequenceCollator(TOKENIZER, 0)
    without_padding = byte_tokenizer()
    without_padding.pad_token = None
    with pytest.raises(ValueError, match="no padding token"):
        SequenceCollator(without_padding)
    items = [{"input_features": np.zeros((2, width), np.float32)} for width in (1, 2)]
    with pytest.raises(ValueError, match="differ in width"):
        SequenceCollator(SFTSequenceFeatureExtractor())(items)
