"""Prepared sequences: inputs, labels, lengths and errors that name the row."""

import numpy as np
import pytest
import torch
from datasets import Array2D, ClassLabel, Dataset, Features, List, Value
from transformers import Trainer, TrainingArguments

from modeling_sft.data import PreparedSequences, SequenceCollator
from modeling_sft.sequence.feature_extraction import SFTSequenceFeatureExtractor
from modeling_sft.sequence.tokenization import byte_tokenizer, list_ops_tokenizer

TOKENIZER = byte_tokenizer()
PAIRS = [
    {"text": "abc", "text_pair": "x", "label": 0},
    {"text": "ö", "text_pair": "wxyz", "label": 1},
    {"text": "a", "text_pair": "b", "label": 1},
]


def ids(text):
    return [4 + byte for byte in text.encode()]


def text_rows(texts, kind=None):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"text": texts, "label": [1] * len(texts)}, features=features).with_format(kind)


@pytest.mark.parametrize("kind", [None, "numpy", "torch"])
def test_texts_of_more_than_one_chunk_keep_their_order(kind):
    texts = [f"text {index}" for index in range(601)]
    prepared = PreparedSequences(text_rows(texts, kind), TOKENIZER)
    assert len(prepared) == 601 and [TOKENIZER.decode(item["input_ids"]) for item in prepared] == texts
    assert prepared.lengths == [len(text) for text in texts]
    assert set(prepared[0]) == {"input_ids", "labels"}
    assert prepared[0]["input_ids"].dtype == np.int64 and prepared[0]["labels"] == 1
    assert prepared[np.int64(-1)]["input_ids"].tolist() == ids("text 600")
    for index in (601, -602):
        with pytest.raises(IndexError):
            prepared[index]


def test_items_do_not_share_memory():
    prepared = PreparedSequences(PAIRS, TOKENIZER)
    prepared[0]["input_ids"][:] = 0
    assert prepared[0]["input_ids"][0] == ids("a")[0]


@pytest.mark.parametrize("rows", [PAIRS, Dataset.from_list(PAIRS)])
def test_pairs_are_joined_or_given_as_two_sequences(rows):
    joined = PreparedSequences(rows, TOKENIZER)
    assert joined[0]["input_ids"].tolist() == [*ids("abc"), TOKENIZER.sep_token_id, *ids("x")]
    assert "pair_input_ids" not in joined[0] and joined.lengths == [5, 7, 3]
    two = PreparedSequences(rows, TOKENIZER, max_length=3, pair=True)
    assert two[1]["input_ids"].tolist() == ids("ö") and two[1]["pair_input_ids"].tolist() == ids("wxy")
    assert two.lengths == [3, 3, 1]


def test_texts_are_cut_to_the_chosen_length_or_that_of_the_tokenizer():
    texts = [{"text": "abcdefgh"}]
    assert PreparedSequences(texts, byte_tokenizer(5), target=None)[0]["input_ids"].tolist() == ids("abcde")
    assert PreparedSequences(texts, byte_tokenizer(5), 2, target=None)[0]["input_ids"].tolist() == ids("ab")
    assert PreparedSequences(texts, TOKENIZER, target=None)[0]["input_ids"].tolist() == ids("abcdefgh")


@pytest.mark.parametrize("feature", [Array2D((None, 2), "float32"), List(List(Value("float32")))])
def test_values_are_extracted(feature):
    values = [np.random.default_rng(length).normal(size=(length, 2)).astype(np.float32) for length in (3, 1, 5)]
    extractor = SFTSequenceFeatureExtractor(2, std=[2.0, 4.0])
    columns = {"values": values, "label": [0, 1, 2]}
    rows = Dataset.from_dict(columns, features=Features({"values": feature, "label": Value("int64")}))
    prepared = PreparedSequences(rows, extractor, max_length=4)
    for item, value in zip(prepared, values):
        assert item["input_features"].dtype == np.float32
        assert np.array_equal(item["input_features"], (value / [2, 4]).astype(np.float32)[:4])
    assert prepared.lengths == [3, 1, 4]


@pytest.mark.parametrize(
    ("labels", "dtype", "shape"),
    [([1, 0], np.int64, ()), ([0.5, 1.5], np.float32, ()), ([[1.0, 0.0, 0.5]] * 2, np.float32, (3,))],
)
def test_kinds_of_labels(labels, dtype, shape):
    rows = [{"text": "a", "label": label} for label in labels]
    for prepared in (PreparedSequences(rows, TOKENIZER), PreparedSequences(Dataset.from_list(rows), TOKENIZER)):
        label = prepared[1]["labels"]
        assert label.dtype == dtype and label.shape == shape and label.tolist() == labels[1]
    assert "labels" not in PreparedSequences(rows, TOKENIZER, target=None)[0]


def test_the_cache_is_small():
    prepared = PreparedSequences([{"text": "a" * 10000}] * 3, TOKENIZER, target=None)
    assert prepared._inputs["input_ids"]._values.nbytes == 2 * 30000


def test_trainer_groups_the_items_by_length(tmp_path):
    texts = ["a" * (1 + 7 * index % 60) for index in range(60)]
    prepared = PreparedSequences(text_rows(texts), TOKENIZER)
    arguments = TrainingArguments(
        str(tmp_path), train_sampling_strategy="group_by_length", per_device_train_batch_size=4, report_to=[]
    )
    trainer = Trainer(
        torch.nn.Linear(1, 1),
        arguments,
        train_dataset=prepared,
        processing_class=TOKENIZER,
        data_collator=SequenceCollator(TOKENIZER),
    )
    sampler = trainer._get_train_sampler()
    assert sampler.lengths == prepared.lengths


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows is empty"),
        ([{"text": "a", "label": 0}, {"text": "", "label": 0}], "Row 1: text must be .* got an empty string"),
        ([{"text": "a", "text_pair": "", "label": 0}], "Row 0: text_pair must be"),
        ([{"text": None, "label": 0}], "Row 0: text must be .* got NoneType"),
        ([{"label": 0}], "Row 0 has no column 'text'"),
        ([{"text": "a", "label": 0}, {"text": "a"}], "Row 1 has no column 'label'.*pass target=None"),
        ([{"text": "a", "label": "positive"}], "label must be numbers"),
        ([{"text": "a", "label": 0}, {"text": "a", "label": None}], "label must be numbers"),
        ([{"text": "a", "label": [0.0]}, {"text": "a", "label": [0.0, 1.0]}], "same number of entries"),
        (iter([{"text": "a", "label": 0}]), "use StreamedText"),
    ],
)
def test_rows_that_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        PreparedSequences(rows, TOKENIZER)


def test_other_errors():
    rows = [{"text": "1 2", "label": 0}, {"text": "  ", "label": 0}]
    with pytest.raises(ValueError, match="Row 1: text has no tokens"):
        PreparedSequences(rows, list_ops_tokenizer())
    with pytest.raises(ValueError, match=r"rows has no column 'label'; its columns are \['text'\]; pass target=None"):
        PreparedSequences(Dataset.from_dict({"text": ["a"]}), TOKENIZER)
    values = [{"values": np.zeros((2, 1)), "label": 0}, {"values": np.full((2, 1), np.nan), "label": 0}]
    with pytest.raises(ValueError, match="Row 1: values must be finite"):
        PreparedSequences(values, SFTSequenceFeatureExtractor())
    with pytest.raises(ValueError, match="pair=True needs texts"):
        PreparedSequences(values[:1], SFTSequenceFeatureExtractor(), pair=True)
    for wrong in ({"max_length": 0}, {"target": "text"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PreparedSequences(rows, TOKENIZER, **wrong)
