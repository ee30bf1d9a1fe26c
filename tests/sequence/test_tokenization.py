"""Tokenizers: ids, exact round trips, pairs, padding and truncation, and what Auto classes load again."""

import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from modeling_sft.sequence.tokenization import (
    byte_pair_tokenizer,
    byte_tokenizer,
    character_tokenizer,
    list_ops_tokenizer,
)

BYTES = byte_tokenizer()
TEXTS = ["the cat and the hen", "a hen, the hen and the oak: THE"] * 2
PAIRS = byte_pair_tokenizer(TEXTS, 267)
TOKENIZERS = {
    "byte_pairs": lambda: byte_pair_tokenizer(TEXTS, 267, model_max_length=11),
    "lower_case": lambda: byte_pair_tokenizer(TEXTS, 267, lowercase=True, model_max_length=11),
    "bytes": lambda: byte_tokenizer(11),
    "characters": lambda: character_tokenizer(["a <sep>", "öß"], 11),
    "list_ops": lambda: list_ops_tokenizer(11),
}


def byte_ids(text):
    return [4 + byte for byte in text.encode()]


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_bytes_have_their_ids_and_round_trips_are_exact(text):
    ids = BYTES(text)["input_ids"]
    assert ids == byte_ids(text)
    assert BYTES.decode(ids) == text


@settings(deadline=None)
@given(st.text(min_size=60, max_size=200), st.integers(1, 70))
def test_a_cut_text_decodes_as_utf_8_with_replacement_characters(text, length):
    ids = BYTES(text, truncation=True, max_length=length)["input_ids"]
    assert ids == byte_ids(text)[:length]
    decoded, whole = BYTES.decode(ids), text.encode()[:length].decode(errors="ignore")
    assert decoded.startswith(whole) and set(decoded[len(whole) :]) <= {"\N{REPLACEMENT CHARACTER}"}


@settings(deadline=None, max_examples=200)
@given(st.text() | st.sampled_from(["the the then", "<sep> the <mask>", "\0é\N{GRINNING FACE}\r\n\t ", "x" * 300]))
def test_byte_pairs_leave_no_text_out_and_round_trips_are_exact(text):
    ids = PAIRS(text)["input_ids"]
    assert min(ids, default=4) >= 4 and len(ids) <= len(text.encode())
    assert PAIRS.decode(ids) == text


def test_byte_pairs_are_frequent_ones_within_words():
    assert len(PAIRS) == 267
    assert PAIRS.convert_ids_to_tokens(PAIRS("the hen the")["input_ids"]) == ["the", "Ġhen", "Ġthe"]
    assert len(PAIRS("kkkk")["input_ids"]) == 4
    # No further pair occurs twice.
    assert len(byte_pair_tokenizer(["abab"], 8192)) == 261
    lower = byte_pair_tokenizer(TEXTS, 267, lowercase=True)
    assert lower("The HEN")["input_ids"] == lower("the hen")["input_ids"] != PAIRS("The HEN")["input_ids"]


@pytest.mark.slow
def test_the_same_texts_give_the_same_byte_pairs_in_another_process():
    script = (
        "import sys; from modeling_sft import byte_pair_tokenizer;"
        f"print(ascii(byte_pair_tokenizer({TEXTS!r} * 50, 280).backend_tokenizer.to_str()))"
    )
    environment = {**os.environ, "RAYON_NUM_THREADS": "3"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ascii(byte_pair_tokenizer(TEXTS * 50, 280).backend_tokenizer.to_str())


@pytest.mark.parametrize("text", ["<sep>", "a<pad> <mask>", " n't , .  \r\n\t", "\0\x7f", "e\u0301 \u212b", "<unk>"])
def test_nothing_in_a_text_is_special_or_changed(text):
    assert BYTES(text)["input_ids"] == byte_ids(text)
    assert BYTES.decode(BYTES(text)["input_ids"]) == text
    characters = character_tokenizer([text])
    assert characters.decode(characters(text)["input_ids"]) == text
    assert len(characters(text)["input_ids"]) == len(text) and len(characters) == 4 + len(set(text))


def test_special_tokens_are_read_on_demand():
    assert BYTES("a<mask>", split_special_tokens=False)["input_ids"] == [101, 1]
    assert BYTES("a<mask>")["input_ids"] == byte_ids("a<mask>")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_and_inputs(name):
    tokenizer = TOKENIZERS[name]()
    special = (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2, 3) == tuple(sorted(tokenizer.all_special_ids))
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert list(tokenizer("a")) == ["input_ids", "attention_mask"]
    assert tokenizer.model_max_length == 11


def test_sizes_and_symbols():
    assert len(BYTES) == 260
    characters = character_tokenizer(["ba", "", "aö"])
    assert characters("aböc")["input_ids"] == [4, 5, 6, 3]
    list_ops = list_ops_tokenizer()
    assert len(list_ops) == 19
    assert list_ops(" [MIN [MAX\n[MED [SM ] 0 9  10 ( ")["input_ids"] == [4, 5, 6, 7, 8, 9, 18, 3, 3]
    assert list_ops.decode([5, 11, 18, 8]) == "[MAX 2 9 ]"


def test_pairs_are_separated_and_their_types_are_given_on_demand():
    encoded = BYTES("ab", "c", return_token_type_ids=True)
    assert encoded["input_ids"] == [101, 102, 2, 103]
    assert encoded["token_type_ids"] == [0, 0, 0, 1]
    assert "token_type_ids" not in BYTES("ab", "c")


def test_padding_and_truncation():
    batch = byte_tokenizer(5)(["abcdefg", "ö"], padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[101, 102, 103, 104, 105], [199, 186, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    pair = BYTES("abcd", "efgh", truncation=True, max_length=5)["input_ids"]
    assert pair == [101, 102, 2, 105, 106]


@pytest.mark.parametrize("model_type", [None, "sft", "unheard_of"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_auto_tokenizer_loads_the_same(tmp_path, name, model_type):
    tokenizer = TOKENIZERS[name]()
    tokenizer.save_pretrained(tmp_path)
    if model_type is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a <sep> öz\n <mask>", "[MAX 3 <pad> ]", " "):
        ids = tokenizer(text)["input_ids"]
        assert loaded(text)["input_ids"] == ids
        assert loaded.decode(ids) == tokenizer.decode(ids)
        pair = {"text": text, "text_pair": "a", "return_token_type_ids": True, "truncation": True}
        assert dict(loaded(**pair)) == dict(tokenizer(**pair))
    assert loaded.all_special_ids == tokenizer.all_special_ids and len(loaded) == len(tokenizer)
    assert loaded.model_input_names == tokenizer.model_input_names and loaded.model_max_length == 11


@pytest.mark.parametrize(("tokenizer", "word"), [(BYTES, "word ö\n"), (PAIRS, "word ö\n"), (PAIRS, "thethe")])
def test_long_texts_take_linear_time(tokenizer, word):
    def seconds(text):
        times = []
        for _ in range(3):
            start = time.process_time()
            tokenizer(text)
            times.append(time.process_time() - start)
        return min(times)

    short = seconds(word * 2500)
    # 256 times as long if it were quadratic.
    assert seconds(word * 40000) < 16 * 8 * short


def test_errors():
    for value in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="model_max_length must be an integer of at least 1"):
            byte_tokenizer(value)
    with pytest.raises(ValueError, match="put a single one into a list"):
        character_tokenizer("abc")
    with pytest.raises(ValueError, match="texts has no character"):
        character_tokenizer([""])
    for texts, message in (
        ("abc", "put a single one into a list"),
        ([""], "texts has no pair of bytes that occurs twice"),
        (["abc"], "texts has no pair of bytes that occurs twice"),
        (["abab", None], r"texts\[1\] must be a string; got NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            byte_pair_tokenizer(texts)
    for value in (260, 300.0, True):
        with pytest.raises(ValueError, match="vocab_size must be an integer of at least 261"):
            byte_pair_tokenizer(TEXTS, value)
    with pytest.raises(ValueError, match="lowercase must be True or False; got None"):
        byte_pair_tokenizer(TEXTS, lowercase=None)
