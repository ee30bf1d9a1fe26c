"""Sequence models: inputs and their errors, precision, memory, checkpointing, compilation, export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from allocations import AllocationRecorder
from modeling_sft import (
    SFTConfig,
    SFTForMaskedLM,
    SFTForQuestionAnswering,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
    SFTForTokenClassification,
    SFTModel,
)
from random_sequences import Batch, random_sequences
from tiny_models import build_sequence

LABELS = torch.tensor([0, 4])


@pytest.fixture(scope="module")
def model() -> Any:
    """Takes ids, embeddings and features; learned positions, so that lengths are limited."""
    return build_sequence(
        SFTModel, torch.float32, num_input_features=3, position_embedding="learned", max_position_embeddings=12
    )


@pytest.fixture
def batch() -> Batch:
    return random_sequences([9, 5])


def changed(batch: Batch, name: str, index: Any, value: float) -> Batch:
    tensor = batch[name].clone()
    tensor[index] = value
    return {**batch, name: tensor}


# Inputs


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("input_ids", (0, 3), 23, "`input_ids` has values from .* to 23: they must lie between 0 and 22. .*tokenizer"),
        ("input_ids", (1, 0), -1, "`input_ids` has values from -1"),
        ("token_type_ids", (0, 3), 2, "`token_type_ids` has values from 0 to 2.*type_vocab_size"),
        ("token_type_ids", (0, 3), -1, "`token_type_ids` has values from -1"),
        ("attention_mask", (1,), 0, "leaves row 1 without a real token"),
        ("attention_mask", (1, 0), 2, "`attention_mask` must hold 1"),
        ("position_ids", (0, 2), -1, "`position_ids` has values from -1"),
        ("position_ids", (0, 2), 12, "needs 13 positions and the model has learned 12: truncate"),
    ],
)
def test_bad_values_raise_naming_the_argument(
    model: Any, batch: Batch, name: str, index: Any, value: float, message: str
) -> None:
    batch["position_ids"] = torch.arange(9).repeat(2, 1)
    with pytest.raises(ValueError, match=message):
        model(**changed(batch, name, index, value))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("input_ids", torch.zeros(2, 9), "`input_ids` has dtype torch.float32: indices must be integers"),
        ("input_ids", torch.zeros(2, 9, 1, dtype=torch.long), r"`input_ids` has shape \(2, 9, 1\): expected \(batch"),
        ("input_ids", torch.zeros(9, dtype=torch.long), r"`input_ids` has shape \(9,\)"),
        ("token_type_ids", torch.zeros(2, 8, dtype=torch.long), "`token_type_ids` has shape"),
        ("token_type_ids", torch.zeros(2, 9), "`token_type_ids` has dtype"),
        ("attention_mask", torch.ones(2, 8), "`attention_mask` has shape"),
        ("position_ids", torch.zeros(2, 8, dtype=torch.long), "`position_ids` has shape"),
        ("position_ids", torch.zeros(8, dtype=torch.long), "`position_ids` has shape"),
        ("position_ids", torch.zeros(1, 9, 2, dtype=torch.long), "`position_ids` has shape"),
        ("position_ids", torch.zeros(3, 9, dtype=torch.long), "`position_ids` has shape"),
        ("position_ids", torch.zeros(2, 9), "`position_ids` has dtype"),
    ],
)
def test_bad_shapes_and_types_raise_naming_the_argument(
    model: Any, batch: Batch, name: str, tensor: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(**{**batch, name: tensor})


@pytest.mark.parametrize(("name", "width"), [("inputs_embeds", 24), ("input_features", 3)])
def test_bad_features_raise_naming_the_argument(model: Any, name: str, width: int) -> None:
    values = torch.randn(2, 9, width)
    assert model(**{name: values}).last_hidden_state.shape == (2, 9, 24)
    with pytest.raises(ValueError, match=rf"`{name}` has shape \(2, 9, {width + 1}\)"):
        model(**{name: torch.randn(2, 9, width + 1)})
    with pytest.raises(ValueError, match=rf"`{name}` has shape \(2, 9\)"):
        model(**{name: torch.randn(2, 9)})
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=f"`{name}` holds NaN or infinite values .*row 1"):
            model(**changed({name: values}, name, (1, 2, 0), wrong))


def test_exactly_one_kind_of_input_is_taken(model: Any, batch: Batch) -> None:
    with pytest.raises(ValueError, match="exactly one of `input_ids`, `inputs_embeds`, `input_features`: got none"):
        model(attention_mask=batch["attention_mask"])
    with pytest.raises(ValueError, match="exactly one of .* got `input_ids`, `inputs_embeds`"):
        model(**batch, inputs_embeds=torch.randn(2, 9, 24))
    with pytest.raises(ValueError, match="`input_features` was given to a model with `num_input_features=0`"):
        build_sequence(SFTModel, torch.float32)(input_features=torch.randn(2, 9, 3))
    with pytest.raises(ValueError, match="`input_ids` was given to a model without `vocab_size`"):
        build_sequence(SFTModel, torch.float32, vocab_size=0, num_input_features=3)(**batch)


def test_empty_sequences_raise(model: Any) -> None:
    for shape in ((2, 0), (0, 3)):
        with pytest.raises(ValueError, match="at least one row and one token"):
            model(torch.zeros(shape, dtype=torch.long))


def test_sequences_longer_than_learned_positions_raise(model: Any) -> None:
    assert model(**random_sequences([12])).last_hidden_state.isfinite().all()
    with pytest.raises(ValueError, match="needs 13 positions and the model has learned 12: truncate"):
        model(**random_sequences([13]))
    # Padding takes no position.
    model(**random_sequences([12, 3], length=20, side="left"))
    build_sequence(SFTModel, torch.float32, max_position_embeddings=12)(**random_sequences([13]))


def test_a_model_without_token_types_takes_zeros_and_nothing_else(batch: Batch) -> None:
    model = build_sequence(SFTModel, torch.float32, type_vocab_size=0)
    zeros = {**batch, "token_type_ids": torch.zeros(2, 9, dtype=torch.long)}
    plain = {name: value for name, value in batch.items() if name != "token_type_ids"}
    assert torch.equal(model(**zeros).last_hidden_state, model(**plain).last_hidden_state)
    with pytest.raises(ValueError, match="`token_type_ids` has values from 0 to 1"):
        model(**batch)


def test_token_types_are_zero_by_default_and_matter(model: Any, batch: Batch) -> None:
    plain = {name: value for name, value in batch.items() if name != "token_type_ids"}
    expected = model(**plain).last_hidden_state
    zeros = {**plain, "token_type_ids": torch.zeros(2, 9, dtype=torch.long)}
    assert torch.equal(model(**zeros).last_hidden_state, expected)
    assert not torch.equal(model(**batch).last_hidden_state, expected)


def test_given_embeddings_replace_those_of_the_ids(model: Any, batch: Batch) -> None:
    embeddings = model.get_input_embeddings()(batch["input_ids"])
    rest = {name: value for name, value in batch.items() if name != "input_ids"}
    real = batch["attention_mask"].bool()
    found = model(inputs_embeds=embeddings, **rest).last_hidden_state[real]
    torch.testing.assert_close(found, model(**batch).last_hidden_state[real])


def test_far_positions_are_refused_by_the_relation_alone(batch: Batch) -> None:
    far = torch.arange(9)
    far[4] = 4_000_000
    with pytest.raises(ValueError, match="`position_ids` of a row differ by up to 4000000: with `relation`, 9 tokens"):
        build_sequence(SFTModel, torch.float32)(**batch, position_ids=far)
    states = build_sequence(SFTModel, torch.float32, relation=False)(**batch, position_ids=far).last_hidden_state
    assert states.isfinite().all()


def test_positions_that_are_far_away_together_cost_no_more(batch: Batch) -> None:
    model = build_sequence(SFTModel, position_embedding="none")
    near = torch.arange(9).repeat(2, 1) + torch.tensor([[0], [7]])
    expected = model(**batch, position_ids=near).last_hidden_state
    with AllocationRecorder() as recorder:
        found = model(**batch, position_ids=near + 2**30).last_hidden_state
    assert recorder.largest < 2**16
    # Padding may hold anything.
    padded = torch.where(batch["attention_mask"].bool(), near + 2**30, 2**31 - 1)
    for states in (found, model(**batch, position_ids=padded).last_hidden_state):
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(states[real], expected[real])


@pytest.mark.parametrize(
    "cls",
    [SFTForMaskedLM, SFTForSequenceClassification, SFTForTokenClassification, SFTForQuestionAnswering],
    ids=lambda cls: cls.__name__,
)
def test_heads_record_what_the_backbone_does(cls: type, batch: Batch) -> None:
    model = build_sequence(cls, torch.float32)
    flags = ("output_attentions", "output_hidden_states", "output_sampled_tokens", "output_importance_scores")
    output = model(**batch, **dict.fromkeys(flags, True))
    assert [x.shape for x in output.attentions] == 2 * [(2, 3, 9, 7)]
    assert [x.shape for x in output.hidden_states] == 3 * [(2, 9, 24)]
    assert [x.shape for x in output.sampled_tokens] == 2 * [(2, 1, 7)]
    assert [x.shape for x in output.importance_scores] == 2 * [(2, 9, 1)]
    plain = model(**batch)
    assert all(getattr(plain, flag.removeprefix("output_")) is None for flag in flags)
    first = model(**batch, return_dict=False)[0]
    assert torch.equal(first, plain.start_logits if cls is SFTForQuestionAnswering else plain.logits)


def test_the_default_configuration_builds() -> None:
    assert 2e6 < SFTModel(SFTConfig()).num_parameters() < 6e6


# Memory, checkpointing, precision


@pytest.mark.parametrize("relation", [True, False], ids=["relation", "plain"])
@pytest.mark.parametrize("estimator", ["gate", "soft"])
@pytest.mark.parametrize("scope", ["layer", "head"])
def test_nothing_of_length_times_length_is_allocated(relation: bool, estimator: str, scope: str) -> None:
    fields = {"relation": relation, "sampling_estimator": estimator, "sampling_scope": scope}
    peaks = []
    for length in (257, 514):
        model = build_sequence(SFTModel, torch.float32, training=True, num_hidden_layers=1, **fields)
        batch = random_sequences([length])
        model(**batch).last_hidden_state.sum().backward()
        model.zero_grad()
        with AllocationRecorder() as recorder:
            model(**batch).last_hidden_state.sum().backward()
        assert recorder.largest // 4 < length * length // 2, recorder.by_operation
        # An (N, K, d) tensor of all heads, and an (N, 2 d_s H) one, which it must not be taken for.
        assert recorder.largest // 4 < length * 7 * 24, recorder.by_operation
        peaks.append(recorder.peak)
    assert peaks[1] <= 2.02 * peaks[0]


@pytest.mark.parametrize("estimator", ["gate", "soft"])
@pytest.mark.parametrize("norm_type", ["layer", "batch"])
def test_gradient_checkpointing_gives_the_same_gradients(estimator: str, norm_type: str) -> None:
    results, batch = [], random_sequences([17, 23], side="left")
    for checkpointing in (False, True):
        model = build_sequence(
            training=True,
            sampling_estimator=estimator,
            norm_type=norm_type,
            sampling_noise=1.0,
            num_sampled_tokens_range=[3, 9],
            hidden_dropout_prob=0.3,
            attention_probs_dropout_prob=0.3,
        )
        if checkpointing:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        calls: list[Any] = []
        model.sft.encoder.layers[0].attention.register_forward_hook(lambda *args, calls=calls: calls.append(args))
        torch.manual_seed(5)
        model(**batch, labels=LABELS).loss.backward()
        assert len(calls) == (2 if checkpointing else 1)
        results.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("precision", ["autocast", "bfloat16"])
@pytest.mark.parametrize("name", ["input_ids", "input_features"])
def test_half_precision_is_finite_and_near(precision: str, name: str) -> None:
    batch = random_sequences([31, 17])
    if name == "input_features":
        batch = {"attention_mask": batch["attention_mask"], name: torch.randn(2, 31, 3)}
    model = build_sequence(dtype=torch.float32, num_input_features=3, num_sampled_tokens=40)
    expected = model(**batch).logits.detach()
    model = model if precision == "autocast" else model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        output = model.train()(**batch, labels=LABELS)
    output.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert (output.logits.float() - expected).norm() < 0.1 * expected.norm()


# Compilation and export

SHAPES = ((20, 13), (9, 7, 30), (5, 2), (64, 63, 7, 1))


@pytest.mark.slow
@pytest.mark.parametrize("relation", [True, False], ids=["relation", "plain"])
def test_a_compiled_model_takes_other_shapes(relation: bool) -> None:
    torch.compiler.reset()
    model = build_sequence(dtype=torch.float32, num_hidden_layers=1, relation=relation)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in SHAPES:
        batch = random_sequences(sizes)
        with torch.no_grad():
            torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("relation", [True, False], ids=["relation", "plain"])
def test_an_exported_program_takes_other_shapes(relation: bool) -> None:
    model, batch = build_sequence(num_hidden_layers=1, relation=relation), random_sequences((20, 13))
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens")
    program = torch.export.export(model, (), batch, dynamic_shapes={name: {0: rows, 1: tokens} for name in batch})
    run = program.module()
    for sizes in SHAPES:
        other = random_sequences(sizes)
        with torch.no_grad():
            torch.testing.assert_close(run(**other).logits, model(**other).logits, rtol=0, atol=1e-10)


# Pairs


def test_pairs_need_their_second_sequences(batch: Batch) -> None:
    model = build_sequence(SFTForSequencePairClassification, torch.float32)
    first, mask = batch["input_ids"], batch["attention_mask"]
    with pytest.raises(ValueError, match="`pair_input_ids` is missing"):
        model(first, mask)
    with pytest.raises(ValueError, match=r"`pair_input_ids` has shape \(1, 9\)"):
        model(first, mask, pair_input_ids=first[:1])
    with pytest.raises(ValueError, match=r"`attention_mask` has shape"):
        model(first, mask, pair_input_ids=first, pair_attention_mask=mask[:, :8])
    with pytest.raises(ValueError, match="leaves row 0 without a real token"):
        model(first, mask, pair_input_ids=first, pair_attention_mask=0 * mask)
    with pytest.raises(ValueError, match="`input_ids` has values"):
        model(first, mask, pair_input_ids=first + 23)
