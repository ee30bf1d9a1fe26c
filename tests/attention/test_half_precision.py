"""Scores, products and gradients beyond 65,504, where float16 ends: backends round no such number within."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attention_cases import (
    Case,
    Inputs,
    arguments,
    attention_inputs,
    gradients,
    reference_scores,
    reference_weights,
    relative_error,
    upstream_gradient,
)
from modeling_sft.attention.backends import ATTENTION_BACKENDS

TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 4e-2}
LARGEST_HALF = torch.finfo(torch.float16).max
# Factors of queries and keys that make scores of about 1e5; powers of two, which change no digit.
FACTORS = {"maxout": 2.0**13, "dot": 2.0**8, "signed_min": 2.0**11}
SIZES: dict[str, Any] = {"length": 6, "slots": "all", "score_channels": 256}
# `sft_compiled` compiles half a minute, so it runs in the slow tier.
BACKENDS = ["eager", "sft_fused", pytest.param("sft_compiled", marks=pytest.mark.slow), "sft_triton"]


def large_inputs(case: Case, dtype: torch.dtype) -> Inputs:
    inputs = attention_inputs(case, dtype)
    factors = {"query": FACTORS[case.score], "key": FACTORS[case.score], "value": 32.0}
    leaves = {
        name: (leaf.detach() * factors.get(name, 1.0)).requires_grad_(name not in ("points", "normals"))
        for name, leaf in inputs.leaves.items()
    }
    return inputs._replace(leaves=leaves)


def large_gradient(case: Case) -> Tensor:
    return upstream_gradient(case) * 2.0**12


def run(name: str, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    if name == "sft_triton":
        pytest.importorskip("triton")
        if dtype == torch.bfloat16 and not torch.cuda.is_available():
            pytest.skip("the interpreter multiplies bfloat16 numbers as if their bits were integers")
    device = "cuda" if name == "sft_triton" and torch.cuda.is_available() else "cpu"
    inputs = large_inputs(case, dtype)
    moved = torch.utils._pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), arguments(case, inputs))
    output = ATTENTION_BACKENDS[name].function(moved)
    assert output.dtype == dtype
    found = gradients(output, inputs.leaves, large_gradient(case).to(device))
    return {"output": output.detach().cpu()} | {leaf: gradient.cpu() for leaf, gradient in found.items()}


def expected(case: Case) -> dict[str, Tensor]:
    inputs = large_inputs(case, torch.float64)
    output = reference_weights(case, inputs) @ inputs.leaves["value"]
    return {"output": output.detach()} | gradients(output, inputs.leaves, large_gradient(case))


def assert_equals_reference(name: str, case: Case, dtype: torch.dtype) -> None:
    found = run(name, case, dtype)
    for leaf, value in expected(case).items():
        # Gradients of weights of the relation may be too large themselves.
        if leaf not in ("scale_weight", "bias_weight") or value.abs().max() < LARGEST_HALF:
            assert relative_error(found[leaf], value, negligible=1e-6) <= TOLERANCES[dtype], leaf


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("relation", ["none", "plain"])
@pytest.mark.parametrize("score", ["maxout", "dot"])
@pytest.mark.parametrize("name", BACKENDS)
def test_large_scores_and_gradients_equal_the_reference(
    name: str, score: str, relation: str, dtype: torch.dtype
) -> None:
    case = Case(score=score, relation=relation, **SIZES)
    inputs = large_inputs(case, torch.float64)
    assert (reference_scores(case, inputs).amax(-1) > LARGEST_HALF).float().mean() > 0.5
    products = large_gradient(case) @ inputs.leaves["value"].mT
    assert (products.abs() > LARGEST_HALF).float().mean() > 0.5
    assert_equals_reference(name, case, dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("name", [*BACKENDS, "sdpa"])
def test_large_scores_of_softmax_are_finite_and_their_outputs_equal_the_reference(
    name: str, dtype: torch.dtype
) -> None:
    case = Case(score="dot", probability="softmax", leak=False, relation="none", **SIZES)
    found = run(name, case, dtype)
    assert relative_error(found["output"], expected(case)["output"]) <= TOLERANCES[dtype]
    if name != "sdpa":
        assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("score", ["maxout", "dot", "signed_min"])
@pytest.mark.parametrize("name", BACKENDS[:3])
def test_large_scores_of_softplus_equal_the_reference(name: str, score: str, dtype: torch.dtype) -> None:
    case = Case(score=score, probability="softplus", relation="none", **SIZES)
    assert_equals_reference(name, case, dtype)
