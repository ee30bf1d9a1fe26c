"""Autocast, half-precision and float64 models: finite for extreme inputs, near float32, exact where it matters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_cases import (
    PROBABILITIES,
    SCORES,
    Case,
    arguments,
    assert_equals_reference,
    attention_inputs,
    gradients,
    outputs_and_gradients,
    relative_error,
    upstream_gradient,
)
from configurations import parametrize_configurations, parametrize_graph_configurations
from modeling_sft import SFTForPointCloudClassification
from modeling_sft.attention.backends import ATTENTION_BACKENDS
from modeling_sft.attention.fused import fused_attention
from random_clouds import Batch, random_batch
from random_graphs import random_graphs
from tiny_models import build, build_graph

LABELS = torch.tensor([0, 4, 2])
# Autocast to bf16 and to float16, and whole models in these dtypes.
PRECISIONS = ("autocast-bfloat16", "autocast-float16", "bfloat16", "float16")
every_precision = pytest.mark.parametrize("precision", PRECISIONS)
every_backend = pytest.mark.parametrize("backend", ["eager", "sft_fused"])


def first_tokens(scores: Tensor, mask: Tensor, k: int, relation_inputs: Any) -> Tensor:
    """A sampler that takes the first k tokens of each cloud: the choice must not depend on the precision."""
    index = torch.arange(k).expand(len(mask), 1, k)
    return torch.where(index < mask.sum(-1)[:, None, None], index, -1)


def in_precision(model: nn.Module, precision: str) -> tuple[nn.Module, AbstractContextManager[Any]]:
    """The model, converted where the precision is that of whole models, and the context to run it in."""
    dtype = getattr(torch, precision.removeprefix("autocast-"))
    if precision.startswith("autocast"):
        return model, torch.autocast("cpu", dtype)
    return model.to(dtype), nullcontext()


def logits(precision: str | None, batch: Batch, backend: str = "sft_fused", **choice: Any) -> Tensor:
    """What a model computes on a choice of tokens that is the same in all precisions."""
    model, context = build(dtype=torch.float32, **choice), nullcontext()
    model.set_attn_implementation(backend)
    model.set_sampler(first_tokens)
    if precision is not None:
        model, context = in_precision(model, precision)
    with torch.no_grad(), context:
        return model(**batch).logits


@parametrize_configurations(full=False)
def test_half_precision_is_near_single_precision(choice: dict[str, Any]) -> None:
    batch = random_batch([31, 17, 9], dtype=torch.float32)
    expected = logits(None, batch, **choice)
    # Batch norm, unlike the others, lets the few large moment invariants of these wide clouds through as they are.
    limit = 0.2 if choice["norm_type"] == "batch" else 0.05
    for precision in ("autocast-bfloat16", "bfloat16"):
        assert relative_error(logits(precision, batch, **choice), expected) < limit, precision


@every_backend
def test_float16_is_nearer(backend: str) -> None:
    batch = random_batch([31, 17, 9], dtype=torch.float32)
    for precision in ("autocast-float16", "float16"):
        assert relative_error(logits(precision, batch, backend), logits(None, batch)) < 1e-2


@every_backend
@every_precision
def test_gradients_in_half_precision_point_where_those_of_single_precision_point(backend: str, precision: str) -> None:
    batch = random_batch([31, 17, 9], dtype=torch.float32)
    found = []
    for chosen in (None, precision):
        model: Any = build(dtype=torch.float32, training=True)
        model.set_attn_implementation(backend)
        model.set_sampler(first_tokens)
        context: AbstractContextManager[Any] = nullcontext()
        if chosen is not None:
            model, context = in_precision(model, chosen)
        with context:
            loss = model(**batch, labels=LABELS).loss
        loss.backward()
        found.append({name: p.grad.double().flatten() for name, p in model.named_parameters()})
    single, half = found
    for name, gradient in single.items():
        assert torch.isfinite(half[name]).all(), name
        if float(gradient.norm()) > 1e-4:
            assert float(torch.cosine_similarity(gradient, half[name], dim=0)) > 0.9, name


# Extreme inputs


def scaled(model: nn.Module, suffixes: tuple[str, ...], factor: float) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(suffixes):
                parameter.mul_(factor)


def huge_scores(model: nn.Module, batch: Batch, sign: float) -> None:
    """Scores of about +-100, leak logits too."""
    scaled(model, ("q_proj.weight", "k_proj.weight", "c_proj.weight"), 40.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("relation.bias_weight"):
                parameter.fill_(20 * sign)


def huge_importance(model: nn.Module, batch: Batch, sign: float) -> None:
    """Importance scores of +-100 and around."""
    scaled(model, ("sampler.weight",), 30.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sampler.bias"):
                parameter.fill_(100 * sign)


def huge_points(model: nn.Module, batch: Batch, sign: float) -> None:
    """Clouds of a size of thousands, or a tenth of it."""
    batch["points"] *= 1e4 if sign > 0 else 1e3


def single_points(model: nn.Module, batch: Batch, sign: float) -> None:
    """Rows of one token, alone or beside a longer one."""
    batch |= random_batch([1 if sign > 0 else 17, 1, 1], dtype=torch.float32)


EXTREMES: list[Callable[[nn.Module, Batch, float], None]] = [huge_scores, huge_importance, huge_points, single_points]


def assert_finite(precision: str, backend: str, extreme: Callable[..., None], sign: float, **choice: Any) -> None:
    batch = random_batch([17, 9, 5], dtype=torch.float32)
    model: Any = build(dtype=torch.float32, **choice)
    model.set_attn_implementation(backend)
    extreme(model, batch, sign)
    model, context = in_precision(model, precision)
    with torch.no_grad(), context:
        assert torch.isfinite(model(**batch).logits).all()
    torch.manual_seed(0)
    with context:
        loss = model.train()(**batch, labels=LABELS).loss
    assert torch.isfinite(loss)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def signs(extreme: Callable[..., None], precision: str) -> tuple[float, ...]:
    # The embeddings of a cloud of size 10,000 are beyond the range of float16.
    too_large = extreme is huge_points and precision in ("autocast-float16", "float16")
    return (-1.0,) if too_large else (1.0, -1.0)


@pytest.mark.parametrize(
    ("precision", "backend"),
    [*((precision, "sft_fused") for precision in PRECISIONS), ("autocast-bfloat16", "eager"), ("float16", "eager")],
)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_inputs_give_finite_outputs_and_gradients(
    precision: str, backend: str, extreme: Callable[..., None]
) -> None:
    for probability, estimator, sign in (("relu", "gate", 1.0), ("softplus", "soft", -1.0), ("softmax", "gate", -1.0)):
        choice = {"attention_probability": probability, "sampling_estimator": estimator}
        assert_finite(precision, backend, extreme, sign if sign in signs(extreme, precision) else -1.0, **choice)


@pytest.mark.full
@every_precision
@pytest.mark.parametrize("extreme", EXTREMES)
@parametrize_configurations(full=False)
def test_extreme_inputs_give_finite_outputs_and_gradients_in_every_configuration(
    choice: dict[str, Any], extreme: Callable[..., None], precision: str
) -> None:
    for sign in signs(extreme, precision):
        assert_finite(precision, "sft_fused", extreme, sign, **choice)


# The attention functions


every_function = pytest.mark.parametrize(
    "function", [pytest.param(ATTENTION_BACKENDS[name].function, id=name) for name in ("eager", "sft_fused")]
)


@every_function
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_accumulated_in_float32(function: Callable[..., Tensor], score: str) -> None:
    # 256 channels: a sum in bf16 would be off by some per cent, and with it the weights of a softmax.
    case = Case(score=score, probability="softmax", leak=False, relation="none", score_channels=256)
    inputs = attention_inputs(case, torch.bfloat16)
    inputs = inputs._replace(leaves=inputs.leaves | {"value": inputs.leaves["value"].float()})
    exact = function(arguments(case, attention_inputs(case)))
    assert relative_error(function(arguments(case, inputs)), exact) < 1e-5


@every_function
@pytest.mark.parametrize("score", SCORES)
def test_autocast_leaves_the_attention_alone(function: Callable[..., Tensor], score: str) -> None:
    for probability in PROBABILITIES:
        case = Case(score=score, probability=probability, relation="mixed")
        expected = outputs_and_gradients(function, case, torch.float32)
        inputs = attention_inputs(case, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            output = function(arguments(case, inputs))
        found = {"output": output} | gradients(output, inputs.leaves, upstream_gradient(case))
        for name, value in expected.items():
            assert found[name].dtype == torch.float32
            torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=f"{name} {probability}")


def test_a_fused_backward_inside_autocast_keeps_its_precision() -> None:
    for probability in PROBABILITIES:
        case = Case(probability=probability, relation="mixed")
        expected = outputs_and_gradients(fused_attention, case, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            found = outputs_and_gradients(fused_attention, case, torch.float32)
        for name, value in expected.items():
            assert torch.equal(found[name], value), name


@every_function
@pytest.mark.parametrize("score", ["maxout", "signed_min"])
def test_ties_share_the_gradient_in_bfloat16(function: Callable[..., Tensor], score: str) -> None:
    for probability in PROBABILITIES:
        case = Case(score=score, probability=probability, quantised=True, batch=2)
        assert_equals_reference(function, case, [torch.bfloat16])


# Double precision


@every_backend
@pytest.mark.parametrize("estimator", ["gate", "soft", "straight_through"])
def test_float64_models_stay_float64(backend: str, estimator: str) -> None:
    model = build(sampling_estimator=estimator, training=True)
    model.set_attn_implementation(backend)
    model.set_sampler(first_tokens)
    batch = random_batch([17, 9, 5])
    dtypes: dict[str, set[torch.dtype]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            tensors = [x for x in (out if isinstance(out, tuple) else (out,)) if isinstance(x, Tensor)]
            dtypes[name] = {x.dtype for x in tensors if x.is_floating_point()}

        return hook

    for name, module in model.named_modules():
        if name and not isinstance(module, SFTForPointCloudClassification):
            module.register_forward_hook(record(name))
    model(**batch, labels=LABELS).loss.backward()
    assert {name for name, found in dtypes.items() if found - {torch.float64}} == set()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float64}

    # A change that float32 does not resolve goes through the whole model.
    def moved(step: float) -> Tensor:
        with torch.no_grad():
            return model.eval()(**(batch | {"points": batch["points"] * (1 + step)})).logits

    difference = (moved(1e-10) - moved(0.0)).abs().max()
    assert 0 < float(difference) < 1e-7
    assert float(difference) == pytest.approx(float((moved(2e-10) - moved(0.0)).abs().max()) / 2, rel=1e-2)


# Graphs


def single_graphs(*sizes: int) -> Batch:
    """Random graphs in single precision."""
    batch = random_graphs(sizes)
    return {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}


@parametrize_graph_configurations(full=False)
def test_graph_models_in_half_precision_are_near_single_precision(choice: dict[str, Any]) -> None:
    batch = single_graphs(31, 17, 9)
    if choice["edge_vocab_sizes"] is None:
        del batch["edge_features"]
    found = {}
    for precision in (None, "autocast-bfloat16", "bfloat16"):
        model: Any = build_graph(dtype=torch.float32, **choice)
        model.set_sampler(first_tokens)
        context: AbstractContextManager[Any] = nullcontext()
        if precision is not None:
            model, context = in_precision(model, precision)
        with torch.no_grad(), context:
            found[precision] = model(**batch).logits
    for precision, logits in found.items():
        assert relative_error(logits, found[None]) < 0.05, precision


@every_backend
@every_precision
def test_gradients_of_graph_models_in_half_precision_point_where_those_of_single_precision_point(
    backend: str, precision: str
) -> None:
    batch = single_graphs(31, 17, 9)
    found = []
    for chosen in (None, precision):
        model: Any = build_graph(dtype=torch.float32, training=True)
        model.set_attn_implementation(backend)
        model.set_sampler(first_tokens)
        context: AbstractContextManager[Any] = nullcontext()
        if chosen is not None:
            model, context = in_precision(model, chosen)
        with context:
            loss = model(**batch, labels=LABELS).loss
        loss.backward()
        found.append({name: p.grad.double().flatten() for name, p in model.named_parameters()})
    single, half = found
    for name, gradient in single.items():
        assert torch.isfinite(half[name]).all(), name
        if float(gradient.norm()) > 1e-4:
            assert float(torch.cosine_similarity(gradient, half[name], dim=0)) > 0.9, name


@every_precision
def test_targets_of_regression_keep_their_digits_in_half_precision(precision: str) -> None:
    # In bfloat16, 10,000 and 10,030 are one number.
    fields = {"num_labels": 2, "target_mean": [1e4, 0.0], "target_scale": [1e1, 1.0], "problem_type": "regression"}
    batch, targets = single_graphs(9, 5, 1), torch.tensor([[10010.0, 1.0], [9990.0, torch.nan], [10030.0, 0.0]])
    model: Any = build_graph(dtype=torch.float32, **fields)
    model.set_sampler(first_tokens)
    with torch.no_grad():
        expected = model(**batch, labels=targets)
    model, context = in_precision(model, precision)
    with torch.no_grad(), context:
        output = model(**batch, labels=targets)
    assert output.logits.dtype == torch.float32
    scale = torch.tensor(fields["target_scale"])
    assert (((output.logits - expected.logits) / scale).abs() < 0.05).all()
    assert float(output.loss) == pytest.approx(float(expected.loss), rel=0.05)
