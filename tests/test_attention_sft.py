"""Scores, probabilities, initialisation, returned attentions, and the SAMSA configuration."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
from modeling_sft import (
    SFTForPointCloudClassification,
    SFTPointCloudConfig,
    SFTPointCloudModel,
    attention_sft,
    geometry_sft,
    local_mixing_sft,
)
from modeling_sft.attention_sft import ATTENTION_SCORES, SFTAttention, _ChannelwiseL1Distance, attention_probabilities
from random_clouds import random_batch
from tiny_models import build

PROBABILITIES = ("relu", "softplus", "softmax")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def first_attention(model: torch.nn.Module) -> SFTAttention:
    return next(module for module in model.modules() if isinstance(module, SFTAttention))


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


@pytest.mark.parametrize("name", ["maxout", "dot"])
@pytest.mark.parametrize("score_head_dim", [1, 8, 64])
@pytest.mark.parametrize("initializer_range", [0.02, 0.2])
def test_initial_scores_are_standardised(name: str, score_head_dim: int, initializer_range: float) -> None:
    torch.manual_seed(0)
    config = SFTPointCloudConfig(
        attention_score=name,
        score_head_dim=score_head_dim,
        num_hidden_layers=1,
        initializer_range=initializer_range,
    )
    attention = first_attention(SFTPointCloudModel(config))
    states = torch.nn.functional.layer_norm(torch.randn(4, 256, 256), (256,))

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (config.num_attention_heads, score_head_dim)).transpose(1, 2)

    with torch.no_grad():
        query, key = split(attention.q_proj(states)), split(attention.k_proj(states[:, :64]))
        e = ATTENTION_SCORES[name](query, key)
    assert abs(float(e.mean())) < 0.1
    assert 0.8 <= float(e.std()) <= 1.2
    assert float((e <= 0).all(-1).float().mean()) < 0.01


def test_no_attention_row_of_a_fresh_model_is_empty() -> None:
    torch.manual_seed(0)
    config = SFTPointCloudConfig(num_hidden_layers=2, num_sampled_tokens=64, residual_scale_init=1.0)
    model = SFTPointCloudModel(config).eval()
    batch = random_batch([200, 150], num_neighbors=16, dtype=torch.float32)
    with torch.no_grad():
        attentions = model(**batch, output_attentions=True).attentions
    real = batch["attention_mask"].bool()
    for p in attentions:
        rows = p.transpose(1, 2)[real]
        assert float((rows.sum(-1) == 0).float().mean()) < 0.01


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


@pytest.mark.parametrize("estimator", ["gate", "soft"])
@pytest.mark.parametrize("scope", ["layer", "head"])
@pytest.mark.parametrize("output_attentions", [True, False])
def test_queries_in_blocks_give_what_one_block_gives(
    estimator: str, scope: str, output_attentions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(sampling_estimator=estimator, sampling_scope=scope, training=True)
    batch = random_batch([20, 13])
    batch.pop("neighbor_index")
    results = []
    for chunk_elements in (2**21, 2 * 3 * 7 * 6, 1):
        for module in (attention_sft, geometry_sft, local_mixing_sft):
            monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk_elements)
        torch.manual_seed(0)
        model.zero_grad()
        out = model(**batch, labels=torch.tensor([0, 1]), output_attentions=output_attentions)
        out.loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        results.append((out.logits.detach(), out.attentions, gradients))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("scope", ["layer", "head"])
@pytest.mark.parametrize("training", [True, False])
def test_returned_attentions_reproduce_the_output_and_carry_gradients(scope: str, training: bool) -> None:
    model = build(sampling_scope=scope, training=training, num_hidden_layers=1)
    batch = random_batch([20, 13, 5])
    torch.manual_seed(0)
    plain = model(**batch)
    attention = first_attention(model)
    outputs: list[Tensor] = []
    hook = attention.o_proj.register_forward_pre_hook(lambda module, args: outputs.append(args[0]))
    torch.manual_seed(0)
    full = model(**batch, output_attentions=True, output_sampled_tokens=True)
    hook.remove()
    torch.testing.assert_close(full.logits, plain.logits, rtol=0, atol=1e-10)
    assert plain.attentions is None
    (p,), (heads,) = full.attentions, outputs
    assert p.shape == (3, 3, 20, 7)
    assert p.requires_grad

    # The values that p multiplies are linear in the heads' outputs, so least squares recovers them exactly.
    per_head = heads.unflatten(-1, (3, 8)).transpose(1, 2)
    for b in range(3):
        for h in range(3):
            values = torch.linalg.lstsq(p[b, h].detach(), per_head[b, h].detach(), driver="gelsd").solution
            torch.testing.assert_close(p[b, h] @ values, per_head[b, h], rtol=0, atol=1e-8)
    (gradient,) = torch.autograd.grad(full.logits.square().sum(), [p])
    real = batch["attention_mask"].bool()
    assert (gradient.abs().sum((1, 3))[real] > 0).all()
    assert (p * (full.sampled_tokens[0] < 0)[:, :, None] == 0).all()


def test_importance_scores_and_sampled_tokens_have_the_documented_shapes() -> None:
    batch = random_batch([20, 13])
    for scope, samples in (("layer", 1), ("head", 3)):
        model = build(sampling_scope=scope, num_extra_tokens=2)
        out = model(**batch, output_importance_scores=True, output_sampled_tokens=True)
        assert [tuple(s.shape) for s in out.importance_scores] == [(2, 20, samples)] * 2
        assert [tuple(s.shape) for s in out.sampled_tokens] == [(2, samples, 7)] * 2
        assert all(s.dtype == torch.int64 for s in out.sampled_tokens)
        assert model(**batch).sampled_tokens is None
        assert model(**batch).importance_scores is None


def test_a_fresh_relation_is_the_identity() -> None:
    torch.manual_seed(0)
    with_relation = SFTForPointCloudClassification(build().config).double().eval()
    without = build(relation=False)
    without.load_state_dict(with_relation.state_dict(), strict=False)
    batch = random_batch([20, 13])
    torch.testing.assert_close(with_relation(**batch).logits, without(**batch).logits, rtol=0, atol=1e-10)


SAMSA: dict[str, Any] = {
    "sampling_scope": "head",
    "attention_score": "dot",
    "attention_probability": "softmax",
    "attention_leak": False,
    "relation": False,
    "norm_type": "rms",
    "norm_position": "pre",
    "num_extra_tokens": 4,
}


def test_samsa_is_a_configuration() -> None:
    model = build(**SAMSA, num_hidden_layers=1, training=True)
    batch = random_batch([20, 13])
    out = model(**batch, output_sampled_tokens=True, output_attentions=True, labels=torch.tensor([0, 1]))
    tokens, p = out.sampled_tokens[0], out.attentions[0]
    assert tokens.shape == (2, 3, 7)
    assert len({tuple(sorted(row)) for row in tokens[0].tolist()}) > 1
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(p.sum(-1).transpose(1, 2)[real], torch.ones(33, 3, dtype=torch.float64))
    out.loss.backward()
    names = {name for name, _ in model.named_parameters()}
    assert not any("c_proj" in name or "relation" in name for name in names)
    assert any(name.endswith("attention.sampler.extra_tokens") for name in names)


def test_extra_tokens_compete_to_be_sampled() -> None:
    for scope in ("layer", "head"):
        model = build(sampling_scope=scope, num_extra_tokens=2, num_hidden_layers=1, sampling_inference="topk")
        batch = random_batch([20, 13])
        sampler = first_attention(model).sampler
        with torch.no_grad():
            sampler.weight.mul_(5)
            sampler.extra_tokens.copy_(sampler.weight[:, None].expand(-1, 2, -1))
        chosen = model(**batch, output_sampled_tokens=True).sampled_tokens[0]
        assert ((chosen == 20).sum(-1) == 1).all()
        assert ((chosen == 21).sum(-1) == 1).all()
        with torch.no_grad():
            sampler.extra_tokens.neg_()
        chosen = model(**batch, output_sampled_tokens=True).sampled_tokens[0]
        assert (chosen < 20).all()


def test_channelwise_l1_distance_equals_cdist_with_its_gradients() -> None:
    query, key = draw(2, 3, 7, 5).requires_grad_(), draw(2, 3, 4, 5, seed=1).requires_grad_()
    distance = _ChannelwiseL1Distance.apply(query, key)
    torch.testing.assert_close(distance, torch.cdist(query, key, p=1.0))
    assert torch.autograd.gradcheck(_ChannelwiseL1Distance.apply, (query, key))
