"""Scores, probabilities and the eager computation, against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
from attention_cases import (
    ODD_SIZES,
    Case,
    arguments,
    assert_close,
    assert_equals_reference,
    attention_inputs,
    covering_cases,
    full_product,
    outputs_and_gradients,
    reference_weights,
)
from modeling_sft.attention import eager as eager_attention_sft
from modeling_sft.attention.eager import eager_attention
from modeling_sft.attention.inputs import AttentionInputs
from modeling_sft.attention.probabilities import attention_probabilities
from modeling_sft.attention.scores import ATTENTION_SCORES, _L1Distance, _sum_of_distances

PROBABILITIES = ("relu", "softplus", "softmax")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eager(inputs: AttentionInputs) -> Tensor:
    return eager_attention(inputs)[0]


@pytest.mark.parametrize("name", ["maxout", "dot", "signed_min"])
@pytest.mark.parametrize("channels", [1, 5, 64])
def test_scores_equal_the_reference(name: str, channels: int) -> None:
    query, key = draw(2, 3, 17, channels), draw(2, 3, 7, channels, seed=1)
    found = ATTENTION_SCORES[name](query, key)
    assert found.shape == (2, 3, 17, 7)
    for b in range(2):
        for h in range(3):
            expected = reference.score(name, query[b, h], key[b, h])
            torch.testing.assert_close(found[b, h], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["maxout", "dot", "signed_min"])
def test_scores_are_symmetric_in_query_and_key(name: str) -> None:
    query, key = draw(9, 5), draw(7, 5, seed=1)
    score = ATTENTION_SCORES[name]
    torch.testing.assert_close(score(query, key), score(key, query).mT)


def test_scores_at_known_values() -> None:
    query, key = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, -3.0]])
    mean, deviation = 1 / math.sqrt(math.pi), math.sqrt(1 - 1 / math.pi)
    assert float(ATTENTION_SCORES["maxout"](query, key)) == pytest.approx((1 - 2 * mean) / deviation / math.sqrt(2))
    assert float(ATTENTION_SCORES["dot"](query, key)) == pytest.approx(4 / math.sqrt(2))
    assert float(ATTENTION_SCORES["signed_min"](query, key)) == pytest.approx((1 + 2) / math.sqrt(2))


@pytest.mark.parametrize("channels", [1, 8, 64])
def test_maxout_of_standard_normal_inputs_is_standardised(channels: int) -> None:
    e = ATTENTION_SCORES["maxout"](draw(3000, channels), draw(3000, channels, seed=1))
    assert abs(float(e.mean())) < 0.05
    assert abs(float(e.std()) - 1) < 0.05


@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("leak", [True, False])
def test_probabilities_equal_the_reference_and_ignore_invalid_slots(probability: str, leak: bool) -> None:
    scores = 3 * draw(3, 2, 17, 7)
    leak_logits = 2 * draw(3, 2, 1, 7, seed=1) if leak else None
    valid = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0, 0]]).bool()[:, None, None]
    extreme = scores.masked_fill(~valid, 1e30)
    extreme_leak = None if leak_logits is None else leak_logits.masked_fill(~valid, 1e30)
    found = attention_probabilities(extreme, valid, extreme_leak, probability)
    assert torch.equal(found, attention_probabilities(scores, valid, leak_logits, probability))
    for b in range(3):
        for h in range(2):
            logits = None if leak_logits is None else leak_logits[b, h, 0]
            expected = reference.probabilities(probability, scores[b, h], valid[b, 0, 0], logits)
            torch.testing.assert_close(found[b, h], expected, rtol=0, atol=1e-12)
    assert (found * ~valid == 0).all()
    if leak or probability != "softmax":
        assert (found.sum(-1) < 1).all()
    else:
        torch.testing.assert_close(found.sum(-1), torch.ones(3, 2, 17, dtype=torch.float64))


@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_and_gradients_are_finite_without_valid_slots_and_for_extreme_scores(
    probability: str, leak: bool, dtype: torch.dtype
) -> None:
    for magnitude in (100.0, 1e4, -100.0, -1e4):
        scores = (magnitude * draw(2, 1, 5, 7)).to(dtype).requires_grad_()
        leak_logits = (magnitude * draw(2, 1, 1, 7, seed=1)).to(dtype).requires_grad_() if leak else None
        valid = torch.tensor([[True] * 6 + [False], [False] * 7])[:, None, None]
        p = attention_probabilities(scores, valid, leak_logits, probability)
        inputs = [scores] if leak_logits is None else [scores, leak_logits]
        assert torch.isfinite(p).all()
        assert (p[1] == 0).all()
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad((p * draw(7).to(dtype)).sum(), inputs))


@settings(max_examples=100, deadline=None)
@given(
    probability=st.sampled_from(PROBABILITIES),
    scores=st.lists(st.floats(-60, 60), min_size=1, max_size=9),
    leak=st.lists(st.floats(-60, 60), min_size=9, max_size=9),
)
def test_probability_rows_are_sub_stochastic(probability: str, scores: list[float], leak: list[float]) -> None:
    e, c = torch.tensor([[[scores]]]).double(), torch.tensor([[[leak[: len(scores)]]]]).double()
    p = attention_probabilities(e, torch.ones_like(e, dtype=torch.bool), c, probability)
    assert (p >= 0).all()
    assert float(p.sum()) <= 1 + 1e-12
    expected = reference.probabilities(probability, e[0, 0], torch.ones(len(scores), dtype=torch.bool), c[0, 0, 0])
    torch.testing.assert_close(p[0, 0], expected, rtol=1e-7, atol=1e-12)


def test_derivatives_of_the_l1_distance() -> None:
    query, key = draw(2, 3, 7, 5).requires_grad_(), draw(2, 3, 4, 5, seed=1).requires_grad_()
    checks = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(_L1Distance.apply, (query, key), **checks)
    assert torch.autograd.gradgradcheck(_L1Distance.apply, (query, key), check_batched_grad=True)


def test_the_sum_of_distances_by_channels_equals_cdist() -> None:
    query, key = draw(2, 3, 7, 5), draw(2, 3, 4, 5, seed=1)
    torch.testing.assert_close(_sum_of_distances(query, key), torch.cdist(query, key, p=1.0))


@full_product()
def test_outputs_and_gradients_equal_the_reference(cases: list[Case]) -> None:
    for case in cases:
        assert_equals_reference(eager, case)


@pytest.mark.parametrize("sizes", ODD_SIZES, ids=str)
def test_outputs_and_gradients_equal_the_reference_at_odd_sizes(sizes: dict[str, int]) -> None:
    for case in covering_cases(**sizes):
        assert_equals_reference(eager, case, [torch.float32, torch.float64])


@pytest.mark.parametrize("slots", ["some", "none"])
@pytest.mark.parametrize("probability", PROBABILITIES)
def test_weights_equal_the_reference_and_give_the_output(probability: str, slots: str) -> None:
    case = Case(probability=probability, relation="mixed", scope="head", slots=slots, batch=2)
    inputs = attention_inputs(case)
    output, weights = eager_attention(arguments(case, inputs), output_attentions=True)
    assert weights is not None
    torch.testing.assert_close(weights, reference_weights(case, inputs), rtol=0, atol=1e-10)
    torch.testing.assert_close(weights @ inputs.leaves["value"], output, rtol=0, atol=1e-12)
    assert (weights.masked_select(~inputs.valid[:, :, None]) == 0).all()
    assert eager_attention(arguments(case, inputs))[1] is None


@pytest.mark.parametrize("relation", ["none", "mixed"])
def test_queries_in_chunks_give_what_one_chunk_gives(relation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(relation=relation, batch=2)
    expected = outputs_and_gradients(eager, case, torch.float64)
    for rows in (62, 10, 1):
        monkeypatch.setattr(eager_attention_sft, "CHUNK_ELEMENTS", case.batch * case.heads * case.sampled * rows)
        assert_close(outputs_and_gradients(eager, case, torch.float64), expected, 1e-12)
