"""Context hashes of sequences: equal for equal runs and words, and for no others."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sft import SFTConfig, SFTForSequenceClassification, SFTModel
from modeling_sft.sequence.context_hashes import sequence_hashes
from modeling_sft.sequence.tokenization import byte_tokenizer

WORD = re.compile(rb"[A-Za-z0-9'\x80-\xff]+")


def hashes_of(text: str) -> tuple[list[list[int]], list[list[bool]], list[list[bool]]]:
    """Ids, presence and counting of the word so far and of two words, for each byte."""
    ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
    hashes = sequence_hashes(ids, torch.ones_like(ids, dtype=torch.bool), [], words=True)
    return tuple(part[0].T.tolist() for part in hashes)  # type: ignore[return-value]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=4), st.booleans())
def test_ids_are_equal_for_equal_runs_alone(rows: list[list[int]], left: bool) -> None:
    length = max(map(len, rows))
    batch, mask = torch.full((len(rows), length), 7), torch.zeros(len(rows), length, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        start = length - len(tokens) if left else 0
        batch[row, start : start + len(tokens)] = torch.tensor(tokens)
        mask[row, start : start + len(tokens)] = True
    sizes = [1, 2, 4]
    hashes = sequence_hashes(batch, mask, sizes)
    assert torch.equal(hashes.present, mask[..., None].expand_as(hashes.present))
    for kind, size in enumerate(sizes):
        runs: dict[tuple[int, ...], int] = {}
        for row, tokens in enumerate(rows):
            for place, found in enumerate(hashes.ids[row, mask[row], kind].tolist()):
                run = tuple(tokens[max(0, place - size + 1) : place + 1])
                assert runs.setdefault(run, found) == found
        assert len(set(runs.values())) == len(runs)


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="aB'é1 .<", min_size=1, max_size=30))
def test_words_are_runs_of_letters_without_regard_to_capitals(text: str) -> None:
    ids, present, counted = hashes_of(text)
    data = text.encode()
    words: dict[bytes, int] = {}
    pairs: dict[tuple[bytes, bytes], int] = {}
    found = list(WORD.finditer(data))
    is_letter = [any(word.start() <= place < word.end() for word in found) for place in range(len(data))]
    assert present == [is_letter, is_letter]
    ends = {word.end() - 1 for word in found}
    assert counted == [[place in ends for place in range(len(data))]] * 2
    previous = b""
    for word in found:
        for place in range(word.start(), word.end()):
            so_far = data[word.start() : place + 1].lower()
            assert words.setdefault(so_far, ids[0][place]) == ids[0][place]
            assert pairs.setdefault((previous, so_far), ids[1][place]) == ids[1][place]
        previous = word[0].lower()
    assert len(set(words.values())) == len(words)
    assert len(set(pairs.values())) == len(pairs)


def test_the_seed_decides_on_the_ids() -> None:
    ids = torch.arange(10)[None]
    first, second = (sequence_hashes(ids, torch.ones_like(ids).bool(), [1, 2], seed=seed).ids for seed in (0, 1))
    assert not (first == second).any()


def test_the_heads_see_a_bag_of_words_beside_the_states() -> None:
    config = SFTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=2, context_hash_words=True
    )
    model = SFTForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.out_proj.weight.zero_()
    tokenizer = byte_tokenizer()

    def logits(text: str) -> torch.Tensor:
        return model(**tokenizer(text, return_tensors="pt")).logits

    torch.testing.assert_close(logits("cat, cat; cat"), logits("CAT cat.. cat!"))
    assert not torch.allclose(logits("cat cat cat"), logits("cat cat dog"))
    assert not torch.allclose(logits("cat cat cat"), logits("cat cat"))


def test_tokens_that_are_added_are_no_letters() -> None:
    hashes = sequence_hashes(torch.tensor([[4 + 97, 260, 4 + 98]]), torch.ones(1, 3, dtype=torch.bool), [], words=True)
    assert hashes.present[0, :, 0].tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["inputs_embeds", "input_features"])
def test_hashes_need_token_ids(name: str) -> None:
    config = SFTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_input_features=16, context_hash_sizes=[2]
    )
    with pytest.raises(ValueError, match="hashes neighbourhoods of token ids: pass `input_ids`"):
        SFTModel(config)(**{name: torch.zeros(1, 3, 16)})
