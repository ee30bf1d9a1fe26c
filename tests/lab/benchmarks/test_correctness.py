import math

import pytest
import torch

from benchmark_cases import TINY, case, suite, workload
from lab.benchmarks import SUITES
from lab.benchmarks.correctness import GateResult, check_peer, check_sft, relative_error
from modeling_sft.attention.backends import ATTENTION_BACKENDS

SFT_CASES = [
    (suite.name, name)
    for suite in SUITES.values()
    for name, made in suite.cases.items()
    if made.is_sft and "compiled" not in name and suite.name != "kernels"
]


def check(suite_name, name, **changes):
    chosen = SUITES[suite_name]
    return check_sft(chosen, chosen.cases[name], workload(size=TINY, **changes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("suite_name", "name"), [*SFT_CASES, ("kernels", "maxout_8"), ("kernels", "sdpa_64")])
def test_every_backend_passes(suite_name, name, dtype):
    if dtype == torch.bfloat16 and name in ("sft_triton", "dot_triton", "maxout_8") and not torch.cuda.is_available():
        pytest.skip("Triton's interpreter cannot multiply bfloat16")
    result = check(suite_name, name, dtype=dtype)
    assert result.passed, result
    assert result.output_error > 0, "compared with itself"
    assert result.backend in str(result)


@pytest.mark.parametrize(("suite_name", "name"), [("tokens", "sft"), ("attention", "sft_fused")])
@pytest.mark.parametrize("part", ["outputs", "gradients"])
def test_a_wrong_backend_fails(suite_name, name, part, monkeypatch):
    right = ATTENTION_BACKENDS["sft_fused"]

    def wrong(inputs):
        if part == "outputs":
            return right.function(inputs) * 1.0001
        # The same values; a gradient that is 2 % short.
        return right.function(inputs._replace(query=inputs.query * 0.98 + 0.02 * inputs.query.detach()))

    monkeypatch.setitem(ATTENTION_BACKENDS, "sft_fused", right._replace(function=wrong))
    result = check(suite_name, name)
    assert not result.passed
    assert (result.output_error > 1e-5) == (part == "outputs")
    assert "WRONG" in str(result)


def test_the_relation_is_part_of_the_check(monkeypatch):
    right = ATTENTION_BACKENDS["sft_fused"]

    def without_relation(inputs):
        return right.function(inputs._replace(relation=None))

    monkeypatch.setitem(ATTENTION_BACKENDS, "sft_fused", right._replace(function=without_relation))
    assert not check("layer", "layer_relation").passed
    assert not check("point_clouds", "sft").passed
    assert not check("graphs", "sft").passed
    assert check("layer", "layer").passed


def test_a_backend_that_gives_nan_fails():
    assert not GateResult("x", torch.float32, "sft_fused", math.nan, 0.0).passed
    assert not GateResult("x", torch.float32, "sft_fused", 0.0, math.nan).passed


def test_relative_error_is_taken_over_all_tensors():
    found, expected = [torch.tensor([3.0]), torch.tensor([1.0, 4.0])], [torch.tensor([3.0]), torch.tensor([0.0, 4.0])]
    assert relative_error(found, expected) == pytest.approx(1 / 5)


def test_peers_are_checked_for_shape_and_finite_values():
    cases = {name: case(name) for name in ("allocate", "nan", "crop", "raise")}
    cases["allocate"] = case("allocate", mib=1)
    found = {name: check_peer(suite(**cases), made, workload()) for name, made in cases.items()}
    assert found["allocate"] is None
    assert found["raise"] == "failed: RuntimeError: no luck"
    assert "not finite" in found["nan"] and "expected" in found["crop"]
