"""Importance scores that are NaN make outputs and losses NaN: no estimator, selection or backend hides them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling_sft import random_selector
from random_clouds import random_batch
from random_graphs import random_graphs
from random_sequences import random_sequences
from tiny_models import build, build_graph, build_sequence

# The first row has more tokens than are sampled, the second fewer, so that slots are unused.
SIZES = (12, 5)
MODELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sequence": (build_sequence, random_sequences),
    "graph": (build_graph, random_graphs),
    "point cloud": (build, random_batch),
}
ESTIMATORS = ("gate", "soft", "straight_through")


def damaged(kind: str = "point cloud", parameter: str = "weight", **changes: Any) -> tuple[Any, dict[str, Any]]:
    """A model whose last scorer has one number that is NaN, and its inputs with labels."""
    build_model, draw = MODELS[kind]
    model = build_model(**changes)
    with torch.no_grad():
        getattr(model.sft.encoder.layers[-1].attention.sampler, parameter).flatten()[0] = torch.nan
    return model, draw(SIZES) | {"labels": torch.tensor([0, 1])}


def check(model: Any, batch: dict[str, Any]) -> None:
    for training in (True, False):
        outputs = model.train(training)(**batch)
        assert outputs.loss.isnan(), f"training: {training}"
        assert outputs.logits.isnan().all(), f"training: {training}"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scope", ["layer", "head"])
@pytest.mark.parametrize("selection", ["systematic", "topk"])
def test_a_damaged_scorer_is_seen(kind: str, estimator: str, scope: str, selection: str) -> None:
    choice = {"sampling_estimator": estimator, "sampling_scope": scope, "sampling_inference": selection}
    check(*damaged(kind, **choice))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_noise": 0.0},
        {"num_sampled_tokens": 40},
        {"parameter": "extra_tokens", "num_extra_tokens": 2},
        {"attention_probability": "softmax", "attention_leak": False},
        {"attention_score": "signed_min", "attention_probability": "softplus", "relation": False},
        {"residual_scale_init": 0.0, "norm_position": "post", "pooling": "max"},
    ],
)
def test_no_other_choice_hides_it(estimator: str, changes: dict[str, Any]) -> None:
    check(*damaged(sampling_estimator=estimator, **changes))


@pytest.mark.parametrize("estimator", ["gate", "soft"])
def test_a_damaged_bias_is_seen(estimator: str) -> None:
    check(*damaged(parameter="bias", sampling_estimator=estimator))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("backend", ["eager", "sdpa", "sft_fused"])
def test_every_backend_passes_it_on(backend: str, estimator: str) -> None:
    plain = {"attention_score": "dot", "attention_probability": "softmax", "attention_leak": False, "relation": False}
    model, batch = damaged(sampling_estimator=estimator, **(plain if backend == "sdpa" else {}))
    model.set_attn_implementation(backend)
    check(model, batch)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_compiled_models_pass_it_on(estimator: str) -> None:
    model, batch = damaged(sampling_estimator=estimator)
    check(torch.compile(model, backend="aot_eager"), batch)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sampled_inference_and_other_samplers_pass_it_on(estimator: str) -> None:
    model, batch = damaged(sampling_estimator=estimator)
    model.eval()
    with model.sampled_inference(seed=0):
        assert model(**batch).loss.isnan()
    model.set_sampler(random_selector)
    check(model, batch)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_and_paddings_keep_to_themselves(estimator: str) -> None:
    sampler = build(sampling_estimator=estimator).sft.encoder.layers[0].attention.sampler
    mask = torch.tensor([[True] * 9, [True] * 9, [True] * 5 + [False] * 4])
    states = torch.randn(3, 9, 24, dtype=torch.float64)
    states[0, 3], states[2, 7] = torch.nan, torch.nan
    for training in (True, False):
        sample = sampler.train(training)(states, mask, 7)[0]
        assert sample.weights[0].isnan().all() and sample.valid[0].all()
        assert sample.weights[1:].isfinite().all() and not sample.valid[2, :, 5:].any()
