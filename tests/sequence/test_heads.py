"""Losses of the sequence heads computed by hand, tied weights, pairs, labels that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, mse_loss

from modeling_sft import (
    SFTForMaskedLM,
    SFTForQuestionAnswering,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
    SFTForTokenClassification,
)
from random_sequences import VOCABULARY, Batch, random_sequences
from tiny_models import build_sequence

SIZES = [9, 5, 7, 3]


@pytest.fixture
def batch() -> Batch:
    return random_sequences(SIZES)


def pairs(batch: Batch) -> Batch:
    """Each row with the one of the opposite place."""
    own = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return own | {f"pair_{name}": value.flip(0) for name, value in own.items()}


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over labels other than -100, one by one."""
    terms = [
        -log_softmax(row, 0)[int(label)]
        for row, label in zip(logits.flatten(0, -2), labels.flatten(), strict=True)
        if label != -100
    ]
    return torch.stack(terms).sum()


def masked_labels(batch: Batch, every: int = 3) -> Tensor:
    places = torch.arange(9) % every == 0
    return batch["input_ids"].masked_fill(~places | (batch["attention_mask"] == 0), -100)


# Masked tokens


def test_the_masked_token_loss_is_the_mean_cross_entropy_of_the_masked_tokens(batch: Batch) -> None:
    model, labels = build_sequence(SFTForMaskedLM), masked_labels(batch)
    output = model(**batch, labels=labels)
    assert output.logits.shape == (4, 9, VOCABULARY)
    count = int((labels != -100).sum())
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, labels) / count)
    again = model(**batch, labels=labels, num_items_in_batch=10)
    torch.testing.assert_close(again.loss, output.loss * count / 10)
    assert model(**batch).loss is None
    nothing = model(**batch, labels=torch.full_like(labels, -100)).loss
    assert nothing == 0
    padding = batch["attention_mask"] == 0
    assert padding.any()
    torch.testing.assert_close(model(**batch, labels=labels.masked_fill(padding, 3)).loss, output.loss)


def tied(model: SFTForMaskedLM) -> bool:
    embeddings, decoder = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return embeddings is decoder and embeddings is model.sft.embeddings.word_embeddings.weight


def test_embeddings_and_output_layer_share_their_weights_for_good(batch: Batch, tmp_path: Path) -> None:
    model = build_sequence(SFTForMaskedLM, torch.float32)
    assert tied(model)
    names = [name for name, _ in model.named_parameters()]
    assert "lm_head.decoder.weight" not in names and "lm_head.decoder.bias" in names
    expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    loaded, report = SFTForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert tied(loaded)
    torch.testing.assert_close(loaded.eval()(**batch).logits, expected)
    optimiser = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(**batch, labels=masked_labels(batch)).loss.backward()
    optimiser.step()
    assert tied(loaded)

    loaded.resize_token_embeddings(VOCABULARY + 4)
    assert tied(loaded) and loaded.config.vocab_size == VOCABULARY + 4
    bigger = batch | {"input_ids": batch["input_ids"] + 4}
    assert loaded(**bigger).logits.shape[-1] == VOCABULARY + 4 == len(loaded.lm_head.decoder.bias)
    loaded.save_pretrained(tmp_path / "resized")
    again = SFTForMaskedLM.from_pretrained(tmp_path / "resized").eval()
    assert tied(again)
    torch.testing.assert_close(again(**bigger).logits, loaded.eval()(**bigger).logits)
    with pytest.raises(ValueError, match=f"between 0 and {VOCABULARY + 3}"):
        again(**{**batch, "input_ids": batch["input_ids"] + VOCABULARY + 4})


def test_masked_tokens_need_a_vocabulary() -> None:
    with pytest.raises(ValueError, match="`vocab_size` is 0: masked tokens"):
        build_sequence(SFTForMaskedLM, vocab_size=0, num_input_features=3)


def test_masked_tokens_start_near_the_uniform_guess() -> None:
    config = build_sequence(SFTForMaskedLM, vocab_size=200).config
    torch.manual_seed(0)
    model = SFTForMaskedLM(config).eval()
    logits = model(**random_sequences([30, 30])).logits
    assert 0.1 < float(logits.std()) < 2


# Answers


def test_the_answer_loss_is_the_mean_of_both_cross_entropies(batch: Batch) -> None:
    model = build_sequence(SFTForQuestionAnswering)
    start, end = torch.tensor([2, 0, 6, -100]), torch.tensor([8, 4, 6, -100])
    output = model(**batch, start_positions=start, end_positions=end)
    assert output.start_logits.shape == output.end_logits.shape == (4, 9)
    expected = 0.0
    for logits, positions in ((output.start_logits, start), (output.end_logits, end)):
        # Padding is no candidate, so that each row is normalised over its own tokens.
        rows = [-log_softmax(row[:size], 0)[p] for row, size, p in zip(logits, SIZES[:3], positions, strict=False)]
        expected = expected + torch.stack(rows).mean() / 2
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ([0, 0, 0, 0], None, "`start_positions` and `end_positions` together"),
        (None, [0, 0, 0, 0], "`start_positions` and `end_positions` together"),
        ([0, 0, 0, 9], [0, 0, 0, 0], "`start_positions` must be -100"),
        ([0, 0, 0, 0], [0, 0, -1, 0], "`end_positions` must be -100"),
        ([0, 0, 0, 0], [8, 8, 8, 8], "`end_positions` names a padded token"),
        ([0, 0, 0], [0, 0, 0, 0], r"`start_positions` has shape \(3,\)"),
        ([0, 0, 0, 0], [[0], [0], [0], [0]], r"`end_positions` has shape \(4, 1\)"),
    ],
)
def test_answers_that_do_not_fit_raise(batch: Batch, start: Any, end: Any, message: str) -> None:
    model = build_sequence(SFTForQuestionAnswering, torch.float32)
    positions = {"start_positions": start, "end_positions": end}
    given = {name: torch.tensor(value) for name, value in positions.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        model(**batch, **given)


# Pairs


def test_a_pair_is_encoded_text_by_text(batch: Batch) -> None:
    model = build_sequence(SFTForSequencePairClassification)
    logits = model(**pairs(batch)).logits
    for row in range(4):
        own, other = (batch["input_ids"][r, : SIZES[r]][None] for r in (row, 3 - row))
        torch.testing.assert_close(model(own, pair_input_ids=other).logits[0], logits[row], rtol=0, atol=1e-10)
    swapped = {name.removeprefix("pair_") if "pair" in name else f"pair_{name}": x for name, x in pairs(batch).items()}
    # The last two pairs are the first two in the other order.
    torch.testing.assert_close(model(**swapped).logits, logits.flip(0), rtol=0, atol=1e-10)
    assert (logits - logits.flip(0)).abs().max() > 1e-3, "the order of a pair matters"


def test_a_pair_head_is_symmetric_where_its_weights_are(batch: Batch) -> None:
    model = build_sequence(SFTForSequencePairClassification)
    with torch.no_grad():
        first, second, _, difference = model.classifier.dense.weight.chunk(4, dim=1)
        second.copy_(first)
        difference.zero_()
    logits = model(**pairs(batch)).logits
    torch.testing.assert_close(logits, logits.flip(0), rtol=0, atol=1e-10)


# Labels


@pytest.mark.parametrize("cls", [SFTForSequenceClassification, SFTForSequencePairClassification])
def test_losses_of_each_problem_type_leave_missing_labels_out(cls: type, batch: Batch) -> None:
    inputs = pairs(batch) if cls is SFTForSequencePairClassification else batch
    model = build_sequence(cls)
    labels = torch.tensor([0, -100, 4, 2])
    output = model(**inputs, labels=labels)
    assert output.logits.shape == (4, 5)
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, labels) / 3)

    targets = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)).round().double()
    targets[1, 2], targets[3, 0] = torch.nan, -100
    for problem, function in (
        ("multi_label_classification", binary_cross_entropy_with_logits),
        ("regression", mse_loss),
    ):
        model = build_sequence(cls, problem_type=problem)
        output = model(**inputs, labels=targets)
        # In regression -100 is a target like any other.
        present = targets.isfinite() & ((targets >= 0) | (problem == "regression"))
        torch.testing.assert_close(output.loss, function(output.logits[present], targets[present]))
        output.loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

    model = build_sequence(cls, num_labels=1)
    for shape in ((4,), (4, 1)):
        output = model(**inputs, labels=torch.ones(shape).double())
        torch.testing.assert_close(output.loss, (output.logits - 1).square().mean())


def test_token_labels_of_padding_are_ignored(batch: Batch) -> None:
    model, real = build_sequence(SFTForTokenClassification), batch["attention_mask"] == 1
    labels = batch["input_ids"] % 5
    output = model(**batch, labels=labels.masked_fill(~real, 77))
    expected = cross_entropy(output.logits, labels.masked_fill(~real, -100)) / real.sum()
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    ("cls", "labels", "message"),
    [
        (SFTForMaskedLM, torch.zeros(4, 8, dtype=torch.long), r"`labels` has shape \(4, 8\)"),
        (SFTForMaskedLM, torch.full((4, 9), VOCABULARY), "`labels` must be -100 .* or from 0 to 22"),
        (SFTForMaskedLM, torch.full((4, 9), -1), "`labels` must be -100"),
        (SFTForSequenceClassification, torch.zeros(3, dtype=torch.long), r"`labels` has shape \(3,\)"),
        (SFTForSequenceClassification, torch.tensor([0, 1, 2, 5]), "`labels` must be -100 .* or from 0 to 4"),
        (SFTForSequenceClassification, torch.zeros(4, 4), r"`labels` has shape \(4, 4\): multi_label"),
        (SFTForTokenClassification, torch.zeros(4, dtype=torch.long), r"`labels` has shape \(4,\)"),
        (SFTForTokenClassification, torch.full((4, 9), 5), "`labels` must be -100 .* or from 0 to 4"),
        (SFTForSequencePairClassification, torch.zeros(8, dtype=torch.long), r"`labels` has shape \(8,\)"),
    ],
)
def test_labels_that_do_not_fit_raise(cls: type, labels: Tensor, message: str, batch: Batch) -> None:
    model = build_sequence(cls, torch.float32)
    inputs = pairs(batch) if cls is SFTForSequencePairClassification else batch
    with pytest.raises(ValueError, match=message):
        model(**inputs, labels=labels)


@pytest.mark.parametrize(
    "cls",
    [
        SFTForMaskedLM,
        SFTForSequenceClassification,
        SFTForTokenClassification,
        SFTForSequencePairClassification,
    ],
    ids=lambda cls: cls.__name__,
)
def test_accumulated_gradients_equal_those_of_one_batch(cls: type, batch: Batch) -> None:
    inputs = pairs(batch) if cls is SFTForSequencePairClassification else batch
    # Parts of unequal weight: a mean of means would differ.
    labels = torch.tensor([0, -100, 4, 2])
    if cls in (SFTForMaskedLM, SFTForTokenClassification):
        labels = masked_labels(batch, every=2)
    if cls is SFTForTokenClassification:
        labels = torch.where(labels < 0, labels, labels % 5)
    model = build_sequence(cls, training=True, sampling_noise=0.0, num_sampled_tokens=9)
    model(**inputs, labels=labels).loss.backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    count = (labels != -100).sum()
    for rows in (slice(0, 2), slice(2, 4)):
        part = {name: value[rows] for name, value in inputs.items()}
        model(**part, labels=labels[rows], num_items_in_batch=count).loss.backward()
    torch.testing.assert_close({name: p.grad for name, p in model.named_parameters()}, whole, rtol=0, atol=1e-10)
