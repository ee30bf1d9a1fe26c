"""Texts for masked language modeling: packing into blocks, streams and workers, masks that stay."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorForLanguageModeling

from modeling_sft.data import ChunkedText, FixedMasks, PreparedSequences, SequenceCollator, StreamedText, TokenMasking
from modeling_sft.sequence.tokenization import byte_tokenizer

TOKENIZER = byte_tokenizer(8)
PAD, MASK, SEP = TOKENIZER.pad_token_id, TOKENIZER.mask_token_id, TOKENIZER.sep_token_id


def rows_of(*texts):
    return [{"text": text} for text in texts]


def equal(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.integers(2, 17))
def test_texts_are_packed_into_full_blocks_in_order(texts, length):
    stream = []
    for text in filter(None, texts):
        stream += [SEP] * bool(stream) + [4 + byte for byte in text.encode()]
    rows = rows_of(*texts)
    streamed = list(StreamedText(rows, TOKENIZER, length))
    if len(stream) < 2:
        assert streamed == []
        with pytest.raises(ValueError, match="less than 2 tokens"):
            ChunkedText(rows, TOKENIZER, length)
        return
    chunked = ChunkedText(rows, TOKENIZER, length)
    dropped = len(stream) % length == 1
    kept = stream[:-1] if dropped else stream
    assert np.concatenate([item["input_ids"] for item in chunked]).tolist() == kept
    assert set(chunked.lengths[:-1]) <= {length} and 2 <= chunked.lengths[-1] <= length
    assert len(chunked) == len(chunked.lengths) == len(streamed)
    assert all(equal(one, other) for one, other in zip(chunked, streamed))
    for item in chunked:
        assert item["input_ids"].dtype == item["special_tokens_mask"].dtype == np.int64
        assert np.array_equal(item["special_tokens_mask"], item["input_ids"] < 4)


@pytest.mark.parametrize("kind", ["list", "datasets"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_gives_every_text_once_in_each_epoch(kind, num_workers):
    texts = [f"{index:03d}" for index in range(40)]
    rows = Dataset.from_dict({"text": texts}).to_iterable_dataset(4) if kind == "datasets" else rows_of(*texts)
    loader = torch.utils.data.DataLoader(StreamedText(rows, TOKENIZER, 16), batch_size=None, num_workers=num_workers)
    for _ in range(2):
        pieces = [TOKENIZER.decode(item["input_ids"]).replace("<sep>", "") for item in loader]
        read = "".join(pieces) if num_workers == 0 else "".join(pieces[0::2] + pieces[1::2])
        assert sorted(read[start : start + 3] for start in range(0, len(read), 3)) == texts


def test_the_epoch_shuffles_a_stream():
    rows = Dataset.from_dict({"text": [f"{index:03d}" for index in range(40)]}).to_iterable_dataset()
    stream = StreamedText(rows.shuffle(seed=0, buffer_size=40), TOKENIZER, 160)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        (item,) = stream
        orders.append(item["input_ids"].tolist())
    assert orders[0] == orders[2] != orders[1]
    StreamedText(rows_of("ab"), TOKENIZER, 2).set_epoch(1)


def test_the_collator_of_transformers_masks_the_blocks():
    text = ChunkedText(rows_of(*["some words" * 20] * 40), TOKENIZER, 500)
    batch = DataCollatorForLanguageModeling(TOKENIZER, seed=0)(list(text))
    original = torch.nn.utils.rnn.pad_sequence([torch.tensor(item["input_ids"]) for item in text], True, PAD)
    chosen = batch["labels"] != -100
    assert torch.equal(batch["labels"][chosen], original[chosen])
    assert not chosen[original < 4].any()
    assert 0.13 < chosen[original >= 4].float().mean() < 0.17
    assert 0.7 < (batch["input_ids"][chosen] == MASK).float().mean() < 0.9
    assert torch.equal(batch["attention_mask"], (original != PAD).long())


def test_fixed_masks_depend_on_seed_and_index_alone():
    text = ChunkedText(rows_of("some words and more " * 500), TOKENIZER, 1000)
    masked = FixedMasks(text, TOKENIZER, seed=3)
    assert len(masked) == len(text) == 10
    later = masked[7]
    torch.rand(3)
    first = [masked[index] for index in range(10)]
    assert equal(first[7], later) and equal(masked[-3], later)
    workers = torch.utils.data.DataLoader(masked, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for one, other in zip(first, workers):
        assert equal(one, {name: value.numpy() for name, value in other.items()})
    assert not equal(FixedMasks(text, TOKENIZER, seed=4)[7], later)
    positions = [tuple(np.flatnonzero(item["labels"] != -100)) for item in first]
    assert len(set(positions)) == 10


@settings(deadline=None, max_examples=10)
@given(st.floats(1.1, 12), st.floats(0.05, 0.95), st.integers(0, 2**16))
def test_spans_have_their_mean_length_and_choose_their_share_of_the_tokens(mean, share, seed):
    probability = share * mean / (mean + 1)
    masking, generator = TokenMasking(probability, mean), torch.Generator().manual_seed(seed)
    chosen = masking.draw_spans(20_001, generator).numpy()
    assert chosen.dtype == bool and chosen.shape == (20_001,)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))
    lengths = edges[1::2] - edges[::2]
    assert abs(lengths.mean() / mean - 1) < 6 / len(lengths) ** 0.5
    assert abs(chosen.mean() / probability - 1) < 9 / len(lengths) ** 0.5
    first = torch.stack([masking.draw_spans(3, generator) for _ in range(150)]).float().mean(0)
    assert (first - probability).abs().max() < 0.22


@pytest.mark.parametrize("masking", [TokenMasking(), TokenMasking(0.4), TokenMasking(0.2, 6), TokenMasking(0.15, 1.5)])
def test_fixed_masks_hide_the_tokens_that_they_ask_for(masking):
    text = ChunkedText(rows_of(*["some words " * 9] * 100), TOKENIZER, 1001)
    probability = masking.mlm_probability
    items = list(FixedMasks(text, TOKENIZER, masking=masking))
    originals = [item["input_ids"] for item in text]
    chosen = [item["labels"] != -100 for item in items]
    for item, original, where in zip(items, originals, chosen):
        assert item["input_ids"].dtype == item["labels"].dtype == np.int64
        assert np.array_equal(item["labels"][where], original[where])
        assert np.array_equal(item["input_ids"][~where], original[~where])
        assert not where[original == SEP].any()
    shown = np.concatenate([item["input_ids"][where] for item, where in zip(items, chosen)])
    assert abs(np.concatenate(chosen).mean() / probability - 0.99) < 0.06 * masking.mean_span_length
    assert 0.75 < (shown == MASK).mean() < 0.85
    batch = SequenceCollator(TOKENIZER)(items)
    assert batch["labels"].shape == batch["input_ids"].shape
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    assert int((batch["labels"] != -100).sum()) == sum(where.sum() for where in chosen)


def test_fixed_masks_of_texts_one_by_one():
    prepared = PreparedSequences(rows_of("a longer text", "b" * 5), byte_tokenizer(), target=None)
    items = list(FixedMasks(prepared, TOKENIZER, masking=TokenMasking(1.0)))
    assert [item["labels"].tolist() for item in items] == [item["input_ids"].tolist() for item in prepared]


def test_errors():
    rows = rows_of("abc")
    without = byte_tokenizer()
    without.sep_token = without.mask_token = None
    for kind in (ChunkedText, StreamedText):
        for length in (1, 2.0, True):
            with pytest.raises(ValueError, match="length must be an integer of at least 2"):
                kind(rows, TOKENIZER, length)
        with pytest.raises(ValueError, match="no separator token"):
            kind(rows, without, 4)
        with pytest.raises(ValueError, match="no column 'text'"):
            list(kind([{"label": 0}], TOKENIZER, 4))
    with pytest.raises(ValueError, match="less than 2 tokens"):
        ChunkedText([], TOKENIZER, 4)
    with pytest.raises(ValueError, match="use StreamedText"):
        ChunkedText(iter(rows), TOKENIZER, 4)
    with pytest.raises(ValueError, match="read only once"):
        StreamedText(iter(rows), TOKENIZER, 4)
    text = ChunkedText(rows, TOKENIZER, 4)
    for index in (1, -2):
        with pytest.raises(IndexError):
            text[index]
        with pytest.raises(IndexError):
            FixedMasks(text, TOKENIZER)[index]
    for seed in (-1, 0.5):
        with pytest.raises(ValueError, match="seed must be an integer"):
            FixedMasks(text, TOKENIZER, seed=seed)
    with pytest.raises(ValueError, match="mask token"):
        FixedMasks(text, without)
    for probability in (1.5, -0.1, True, "0.15", float("nan")):
        with pytest.raises(ValueError, match="mlm_probability must be a number from 0 to 1"):
            TokenMasking(probability)
    for length in (0.5, float("inf"), float("nan"), None):
        with pytest.raises(ValueError, match="mean_span_length must be a number of at least 1"):
            TokenMasking(mean_span_length=length)
    for probability in (0, 0.75, 1):
        with pytest.raises(ValueError, match="above 0 and below 0.75 for spans of 3 tokens"):
            TokenMasking(probability, 3)
