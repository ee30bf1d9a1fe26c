"""The attention module: initialisation, returned attentions, the SAMSA configuration, agreement of the backends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from configurations import parametrize_configurations
from modeling_sft import SFTForPointCloudClassification, SFTPointCloudConfig, SFTPointCloudModel
from modeling_sft.attention import eager, fused
from modeling_sft.attention.attention import SFTAttention
from modeling_sft.attention.scores import ATTENTION_SCORES
from modeling_sft.point_cloud import geometry, local_mixing
from random_clouds import Batch, random_batch
from tiny_models import build


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def first_attention(model: torch.nn.Module) -> SFTAttention:
    return next(module for module in model.modules() if isinstance(module, SFTAttention))


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


@pytest.mark.parametrize("estimator", ["gate", "soft"])
@pytest.mark.parametrize("scope", ["layer", "head"])
@pytest.mark.parametrize("backend", ["eager", "eager with weights", "sft_fused"])
def test_queries_in_blocks_give_what_one_block_gives(
    estimator: str, scope: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(sampling_estimator=estimator, sampling_scope=scope, training=True)
    model.set_attn_implementation(backend.split()[0])
    batch = random_batch([20, 13])
    batch.pop("neighbor_index")
    results = []
    for chunk_elements in (2**21, 2 * 3 * 7 * 6, 1):
        monkeypatch.setattr(eager, "CHUNK_ELEMENTS", chunk_elements)
        for module in (geometry, local_mixing):
            monkeypatch.setattr(module, "PAIR_ELEMENTS", chunk_elements)
        monkeypatch.setattr(fused, "TILE_ELEMENTS", chunk_elements)
        monkeypatch.setattr(fused, "MIN_QUERIES", 1)
        torch.manual_seed(0)
        model.zero_grad()
        out = model(**batch, labels=torch.tensor([0, 1]), output_attentions=backend.endswith("weights"))
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


# Agreement of the backends in whole models


def step(backend: str, choice: dict[str, Any], batch: Batch, checkpointing: bool = False) -> dict[str, Tensor]:
    """Logits of training and of evaluation by a backend, and the gradient of every parameter and of the points."""
    model = build(**choice)
    model.set_attn_implementation(backend)
    evaluated = model(**batch).logits.detach()
    if checkpointing:
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    model.train()
    points = batch["points"].clone().requires_grad_()
    torch.manual_seed(0)
    out = model(**(batch | {"points": points}), labels=torch.tensor([0, 4, 2])[: len(points)])
    out.loss.backward()
    assert first_attention(model).last_backend == backend
    found = {"evaluated": evaluated, "logits": out.logits.detach(), "points": points.grad}
    return found | {name: parameter.grad for name, parameter in model.named_parameters()}


@parametrize_configurations(full=False)
def test_fused_and_eager_models_agree(choice: dict[str, Any]) -> None:
    batch = random_batch([17, 9, 5])
    torch.testing.assert_close(step("sft_fused", choice, batch), step("eager", choice, batch), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimator", ["gate", "soft", "straight_through"])
@pytest.mark.parametrize("backend", ["sft_fused", "eager"])
def test_checkpointed_models_agree_with_eager_ones(backend: str, estimator: str) -> None:
    choice, batch = {"sampling_estimator": estimator, "sampling_noise": 1.0}, random_batch([17, 9, 5])
    found = step(backend, choice, batch, checkpointing=True)
    torch.testing.assert_close(found, step("eager", choice, batch), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scope", ["layer", "head"])
def test_sdpa_models_agree_with_eager_ones(scope: str) -> None:
    choice = SAMSA | {"sampling_scope": scope}
    batch = random_batch([17, 9, 5])
    expected = step("eager", choice, batch)
    torch.testing.assert_close(step("sdpa", choice, batch), expected, rtol=1e-9, atol=1e-9)
    found = step("sdpa", choice, batch, checkpointing=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("choice", [{}, SAMSA, {"sampling_estimator": "soft", "attention_probability": "softplus"}])
def test_compiled_and_eager_models_agree(choice: dict[str, Any]) -> None:
    batch = random_batch([17, 9, 5])
    for checkpointing in (False, True):
        found = step("sft_compiled", choice, batch, checkpointing)
        torch.testing.assert_close(found, step("eager", choice, batch), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "backend", ["eager", "sdpa", "sft_fused", pytest.param("sft_compiled", marks=pytest.mark.slow)]
)
def test_attention_dropout_acts_in_training_alone_and_is_reproducible(backend: str) -> None:
    batch = random_batch([17, 9, 5])
    fixed = {**(SAMSA if backend == "sdpa" else {}), "sampling_noise": 0.0}
    choice = fixed | {"attention_probs_dropout_prob": 0.3}
    found, without = step(backend, choice, batch), step(backend, fixed, batch)
    assert torch.equal(found["evaluated"], without["evaluated"])
    assert not torch.allclose(found["logits"], without["logits"])
    torch.testing.assert_close(step(backend, choice, batch), found, rtol=0, atol=0)
    torch.testing.assert_close(step(backend, choice, batch, checkpointing=True), found, rtol=0, atol=1e-12)


def test_trained_with_one_backend_a_model_runs_on_the_others() -> None:
    model, batch = build(training=True), random_batch([17, 9, 5])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for backend in ("sft_fused", "eager", "sft_fused"):
        model.set_attn_implementation(backend)
        torch.manual_seed(0)
        loss = model(**batch, labels=torch.tensor([0, 4, 2])).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert first_attention(model).last_backend == backend
    assert losses[2] < losses[1] < losses[0]
