"""What must hold for the sequence models whatever the configuration: padding, positions, K, determinism, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configurations import SEQUENCE_COVERING, name_of, parametrize_sequence_configurations
from layers import assert_same_sample
from modeling_sft import (
    SFTForMaskedLM,
    SFTForQuestionAnswering,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
    SFTForTokenClassification,
    SFTModel,
)
from random_sequences import SIDES, VOCABULARY, Batch, pad, random_sequence, random_sequences
from tiny_models import build_sequence, give_all_tokens_one_score

HEADS = (
    SFTForMaskedLM,
    SFTForSequenceClassification,
    SFTForTokenClassification,
    SFTForQuestionAnswering,
    SFTForSequencePairClassification,
)
every_head = pytest.mark.parametrize("cls", HEADS, ids=lambda cls: cls.__name__)


def _heads_and_configurations() -> list[Any]:
    """Every head and every configuration: in the fast tier each configuration with one head, in the full tier all."""
    parameters = []
    for row, choice in enumerate(SEQUENCE_COVERING):
        for column, cls in enumerate(HEADS):
            marks = () if row % len(HEADS) == column else (pytest.mark.full,)
            parameters.append(pytest.param(cls, choice, id=f"{cls.__name__}-{name_of(choice)}", marks=marks))
    return parameters


heads_and_configurations = pytest.mark.parametrize(("cls", "choice"), _heads_and_configurations())
ESTIMATORS = ("gate", "soft", "straight_through")
# No token has this id, no type this number.
GARBAGE = 10**6


def states(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch).last_hidden_state


def sampled(model: nn.Module, batch: Batch) -> list[Tensor]:
    with torch.no_grad():
        return list(model(**batch, output_sampled_tokens=True).sampled_tokens)


def without_types(batch: Batch) -> Batch:
    return {name: value for name, value in batch.items() if name != "token_type_ids"}


def inputs_of(cls: type, batch: Batch) -> Batch:
    """What a head takes: the pair head also gets the rows in reverse order, cut to the longest of them."""
    if cls is not SFTForSequencePairClassification:
        return batch
    batch = without_types(batch)
    return batch | {f"pair_{name}": value.flip(0) for name, value in batch.items()}


def predictions(model: nn.Module, batch: Batch) -> list[Tensor]:
    """What a model says of each row, padding left out: `(C,)`, or `(n, C)` where it speaks of tokens."""
    with torch.no_grad():
        output = model(**inputs_of(type(model), batch))
    if isinstance(model, SFTForQuestionAnswering):
        values = torch.stack([output.start_logits, output.end_logits], dim=-1)
        # No answer starts or ends in padding.
        assert (values[batch["attention_mask"] == 0] == torch.finfo(values.dtype).min).all()
    else:
        values = output.last_hidden_state if isinstance(model, SFTModel) else output.logits
    if values.dim() == 2:
        return list(values)
    return [row[real] for row, real in zip(values, batch["attention_mask"].bool(), strict=True)]


def labels_of(cls: type, batch: Batch, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(batch["input_ids"].shape)

    def draw(high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    if cls is SFTForQuestionAnswering:
        first = batch["attention_mask"].argmax(1)
        return {"start_positions": first, "end_positions": first + batch["attention_mask"].sum(1) - 1}
    if cls is SFTForMaskedLM:
        return {"labels": draw(VOCABULARY, shape).masked_fill(batch["attention_mask"] == 0, -100)}
    return {"labels": draw(5, shape if cls is SFTForTokenClassification else shape[:1])}


# 1. Padding


def check_padding(model: nn.Module, sequences: list[Batch], tolerance: float) -> None:
    """Each sequence gives the same predictions and samples alone and in batches with padding of any place and kind."""
    singles = [pad([sequence], len(sequence["input_ids"])) for sequence in sequences]
    longest = max(len(sequence["input_ids"]) for sequence in sequences)
    pairs = isinstance(model, SFTForSequencePairClassification)
    alone = [] if pairs else [predictions(model, single)[0] for single in singles]
    if pairs:
        with torch.no_grad():
            for first, second in zip(singles, reversed(singles), strict=True):
                second = {f"pair_{name}": value for name, value in without_types(second).items()}
                alone.append(model(**without_types(first), **second).logits[0])
    for length in (longest + 1, 2 * longest + 3):
        for side in SIDES:
            batch = pad(sequences, length, side, filler=GARBAGE)
            for row, found in enumerate(predictions(model, batch)):
                torch.testing.assert_close(found, alone[row], rtol=0, atol=tolerance, msg=f"{side} {length} {row}")
            if not pairs:
                check_samples(model, singles, batch)


def check_samples(model: nn.Module, singles: list[Batch], batch: Batch) -> None:
    length = batch["input_ids"].shape[1]
    together = sampled(model, batch)
    for row, single in enumerate(singles):
        size, start = single["input_ids"].shape[1], int(batch["attention_mask"][row].argmax())
        for one, many in zip(sampled(model, single), together, strict=True):
            found = torch.where(many[row] >= length, many[row] - length + size, many[row] - start)
            found = torch.where(many[row] < 0, -1, found)
            assert_same_sample(one[0], found)


@heads_and_configurations
def test_padding_does_not_change_a_sequence(cls: type, choice: dict[str, Any]) -> None:
    check_padding(build_sequence(cls, **choice), [random_sequence(size, seed=size) for size in (17, 9, 5, 1)], 1e-9)


@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "first"])
@pytest.mark.parametrize("inference", ["systematic", "topk"])
@pytest.mark.parametrize("relation", [True, False], ids=["relation", "plain"])
def test_padding_does_not_change_a_sequence_in_float32(pooling: str, inference: str, relation: bool) -> None:
    fields = {"pooling": pooling, "sampling_inference": inference, "relation": relation}
    sequences = [random_sequence(size, seed=size) for size in (30, 17, 9, 5, 1)]
    check_padding(build_sequence(dtype=torch.float32, **fields), sequences, 1e-5)


@pytest.mark.parametrize("inference", ["systematic", "topk"])
def test_padding_does_not_change_the_sample_among_tied_tokens(inference: str) -> None:
    fields = {"position_embedding": "none", "local_mixing": False, "type_vocab_size": 0}
    model = build_sequence(dtype=torch.float32, sampling_inference=inference, **fields)
    for seed in range(4):
        few = random_sequence(3, seed)["input_ids"]
        check_padding(model, [{"input_ids": few[torch.arange(size) % 3]} for size in (24, 13)], 1e-5)


@pytest.mark.parametrize("name", ["inputs_embeds", "input_features"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("choice", [{}, {"relation": False}, {"local_mixing": False}], ids=str)
def test_padded_features_may_be_nan(name: str, side: str, choice: dict[str, Any]) -> None:
    model = build_sequence(SFTModel, num_input_features=3, **choice)
    generator = torch.Generator().manual_seed(0)
    width = 3 if name == "input_features" else 24
    rows = [torch.randn(size, width, generator=generator, dtype=torch.float64) for size in (17, 9, 1)]
    values, mask = torch.full((3, 20, width), torch.nan, dtype=torch.float64), torch.zeros(3, 20, dtype=torch.bool)
    for row, value in enumerate(rows):
        start = SIDES[side](20 - len(value))
        values[row, start : start + len(value)], mask[row, start : start + len(value)] = value, True
    together = states(model, {name: values, "attention_mask": mask})
    assert together.isfinite().all()
    for row, value in enumerate(rows):
        alone = states(model, {name: value[None]})[0]
        torch.testing.assert_close(together[row, mask[row]], alone, rtol=0, atol=1e-9)


@every_head
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_padding_does_not_change_training_without_noise(cls: type, estimator: str) -> None:
    # Enough slots for all tokens: partners, which are drawn, would differ otherwise.
    k = 7 if estimator == "gate" else 17
    results = []
    for length, side in ((17, "right"), (29, "right"), (23, "left"), (28, "both")):
        model = build_sequence(
            cls,
            training=True,
            norm_type="batch",
            sampling_noise=0.0,
            sampling_estimator=estimator,
            num_sampled_tokens=k,
        )
        # The pair head's batch norm sees both rows of a pair.
        batch = random_sequences([17, 9, 5], length=length, side=side)
        labels = labels_of(cls, batch)
        if cls in (SFTForMaskedLM, SFTForTokenClassification):
            labels = {"labels": (batch["input_ids"] % 5).masked_fill(batch["attention_mask"] == 0, -100)}
        loss = model(**inputs_of(cls, batch), **labels).loss
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((loss.detach(), gradients, dict(model.named_buffers())))
    for padded in results[1:]:
        torch.testing.assert_close(padded[0], results[0][0], rtol=0, atol=1e-10)
        torch.testing.assert_close(padded[1], results[0][1], rtol=0, atol=1e-9)
        torch.testing.assert_close(padded[2], results[0][2], rtol=0, atol=1e-10)


# 2. Order and positions


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("changes", [{}, {"sampling_scope": "head", "num_extra_tokens": 2}, {"norm_position": "post"}])
def test_without_positions_mixing_and_relation_tokens_are_a_set(changes: dict[str, Any], ties: bool) -> None:
    fields = {"position_embedding": "none", "local_mixing": False, "relation": False} | changes
    # Equal tokens are told apart by their order alone, so that all ids differ.
    batch = {"input_ids": torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(1))[None]}
    order = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(0))
    permuted = {"input_ids": batch["input_ids"][:, order]}

    def change(**other: Any) -> Tensor:
        model = build_sequence(SFTModel, **(fields | other))
        if ties:
            give_all_tokens_one_score(model)
        return (states(model, permuted) - states(model, batch)[:, order]).abs().max()

    assert change() < 1e-9
    for other in ({"position_embedding": "sinusoidal"}, {"position_embedding": "learned"}):
        assert change(**other) > 1e-3, other
    for name in ("local_mixing", "relation"):
        assert change(**{name: True}) > 1e-3, name


@parametrize_sequence_configurations(full=False)
def test_real_tokens_are_counted_from_zero_by_default(choice: dict[str, Any]) -> None:
    model = build_sequence(SFTModel, **choice)
    for side in SIDES:
        batch = random_sequences([17, 9, 1], length=21, side=side)
        mask = batch["attention_mask"].bool()
        given = (mask.long().cumsum(1) - 1).masked_fill(~mask, 70)
        torch.testing.assert_close(
            states(model, batch | {"position_ids": given})[mask], states(model, batch)[mask], rtol=0, atol=1e-10
        )
    single = random_sequences([17, 17])
    for shape in ((17,), (1, 17), (2, 17)):
        given = torch.arange(17).expand(shape)
        found = states(model, single | {"position_ids": given})
        torch.testing.assert_close(found, states(model, single), rtol=0, atol=1e-10)


@pytest.mark.parametrize("relation", [True, False], ids=["relation", "plain"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8], ids=str)
def test_ids_of_any_integer_type_will_do(dtype: torch.dtype, relation: bool) -> None:
    model = build_sequence(SFTModel, relation=relation, context_hash_sizes=(1, 2))
    batch = random_sequences([17, 17])
    batch["position_ids"] = torch.arange(17).flip(0).expand(2, 17)
    expected = states(model, batch)
    found = states(model, {name: value.to(dtype) for name, value in batch.items()})
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("local_mixing", [True, False])
def test_the_relation_depends_on_offsets_alone(estimator: str, local_mixing: bool) -> None:
    fields = {"sampling_estimator": estimator, "local_mixing": local_mixing, "num_extra_tokens": 1}
    model = build_sequence(SFTModel, position_embedding="none", **fields)
    batch = random_sequences([17, 9])
    gaps = torch.randint(1, 9, (2, 17), generator=torch.Generator().manual_seed(0)).cumsum(1)
    expected = states(model, batch | {"position_ids": gaps})
    mask = batch["attention_mask"].bool()
    for shift in (1, 1000):
        found = states(model, batch | {"position_ids": gaps + shift})
        torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-10)
    stretched = states(model, batch | {"position_ids": 2 * gaps})
    reversed_offsets = states(model, batch | {"position_ids": gaps.max() - gaps})
    for other in (stretched, reversed_offsets):
        assert (other - expected)[mask].abs().max() > 1e-3
    absolute = build_sequence(SFTModel, relation=False, **fields)
    found, expected = (states(absolute, batch | {"position_ids": gaps + shift}) for shift in (1, 0))
    assert (found - expected)[mask].abs().max() > 1e-3


# 4. Sample size


@parametrize_sequence_configurations()
def test_as_many_slots_as_tokens_means_attention_to_every_token(choice: dict[str, Any]) -> None:
    extra = choice["num_extra_tokens"]
    batch = random_sequences([17, 9], length=20, side="left")
    mask = batch["attention_mask"].bool()
    model = build_sequence(SFTModel, **choice, num_sampled_tokens=20 + extra)
    for training in (False, True):
        model.train(training)
        for chosen in sampled(model, batch):
            for row, size in ((0, 17), (1, 9)):
                expected = [*range(20 - size, 20), *range(20, 20 + extra)]
                assert all(sorted(t for t in one if t >= 0) == expected for one in chosen[row].tolist())
    full = states(model.eval(), batch)[mask]
    model.set_num_sampled_tokens(40)
    torch.testing.assert_close(states(model, batch)[mask], full, rtol=0, atol=1e-10)
    if choice["norm_type"] != "batch":
        model.set_sampling_noise(1.0)
        torch.testing.assert_close(states(model.train(), batch)[mask], full, rtol=0, atol=1e-10)
        model.eval()
    model.set_num_sampled_tokens(5)
    assert (states(model, batch)[mask] - full).abs().max() > 1e-6


# 5. Determinism


@heads_and_configurations
def test_evaluation_is_deterministic_and_training_reproducible_under_a_seed(cls: type, choice: dict[str, Any]) -> None:
    batch = random_sequences([31, 17])
    inputs, model = inputs_of(cls, batch), build_sequence(cls, **choice)
    assert all(map(torch.equal, predictions(model, batch), predictions(model, batch)))

    def train_step(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        again = build_sequence(cls, **choice, training=True)
        torch.manual_seed(seed)
        loss = again(**inputs, **labels_of(cls, batch)).loss
        loss.backward()
        return loss.detach(), {name: p.grad for name, p in again.named_parameters() if p.grad is not None}

    (loss, gradients), (same_loss, same_gradients) = train_step(0), train_step(0)
    assert torch.equal(loss, same_loss)
    torch.testing.assert_close(gradients, same_gradients, rtol=0, atol=0)
    if choice["sampling_noise"] > 0:
        # Little noise may leave one sample as it was.
        assert not all(torch.equal(loss, train_step(seed)[0]) for seed in (1, 2, 3))


# 7. Gradients and extremes


def gradients_by_name(model: nn.Module, batch: Batch) -> dict[str, float]:
    """Largest absolute gradient of each parameter, -1 without one."""
    model.zero_grad(set_to_none=True)
    model(**inputs_of(type(model), batch), **labels_of(type(model), batch)).loss.backward()
    return {name: -1.0 if p.grad is None else float(p.grad.abs().max()) for name, p in model.named_parameters()}


@heads_and_configurations
def test_gradient_reaches_every_parameter(cls: type, choice: dict[str, Any]) -> None:
    # The first sequence is taken whole, extra tokens included; the others leave partners over.
    types = 0 if cls is SFTForSequencePairClassification else 2
    model = build_sequence(cls, **choice, training=True, num_sampled_tokens=19, type_vocab_size=types)
    last = ("final_norm.bias", "layers.1.feed_forward_norm.bias", "qa_outputs.out_proj.bias")
    torch.manual_seed(0)
    for name, gradient in gradients_by_name(model, random_sequences([17, 23, 30])).items():
        # A batch norm takes away whatever is constant over tokens, and so does the choice of one token.
        vanishes = choice["norm_type"] == "batch" and name.endswith("bias")
        vanishes |= cls is SFTForQuestionAnswering and name.endswith(last)
        assert gradient > (-1 if vanishes else 1e-9), name


@every_head
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_after_one_step_from_the_start_gradient_reaches_every_parameter(cls: type, estimator: str) -> None:
    torch.manual_seed(0)
    # Gates have a gradient for drawn tokens alone: most are drawn, the extra ones with them.
    fields = {"residual_scale_init": 0.0, "num_extra_tokens": 2, "num_sampled_tokens": 18}
    config = build_sequence(cls, sampling_estimator=estimator, **fields).config
    model = cls(config).double().train()
    batch = random_sequences([17, 23, 20])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    first = gradients_by_name(model, batch)
    scales = [value for name, value in first.items() if name.endswith("residual_scale")]
    assert len(scales) == 2 and min(scales) > 0
    assert min(first.values()) >= 0, "every parameter belongs to the graph"
    optimiser.step()
    second = gradients_by_name(model, batch)
    assert {name for name, value in second.items() if value <= 0} == set()


@heads_and_configurations
def test_one_token_sequences_and_extreme_scores_are_finite(cls: type, choice: dict[str, Any]) -> None:
    batch = random_sequences([1, 1])
    model = build_sequence(cls, dtype=torch.float32, **choice)
    for scale in (1.0, 100.0):
        with torch.no_grad():
            for module in model.modules():
                if hasattr(module, "q_proj"):
                    module.q_proj.weight.mul_(scale)
                    module.sampler.weight.mul_(scale)
                    if module.relation is not None:
                        module.relation.bias_weight.mul_(scale)
        for sizes in ((1, 1), (20, 3)):
            batch = random_sequences(sizes)
            assert all(row.isfinite().all() for row in predictions(model.eval(), batch))
            assert all(0 <= value < torch.inf for value in gradients_by_name(model.train(), batch).values())
