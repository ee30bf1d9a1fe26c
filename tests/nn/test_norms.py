"""Norms against the float64 reference; batch norm leaves padding out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import reference
from configurations import tiny_config
from layers import relative_rms
from modeling_sft.nn import norms
from modeling_sft.nn.norms import build_norm
from tiny_models import randomise


def inputs_of(sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Token states `(B, N, D)` of rows of these sizes, and their mask."""
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    generator = torch.Generator().manual_seed(len(sizes))
    return torch.randn(len(sizes), max(sizes), 24, generator=generator, dtype=torch.float64), mask


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm_type", ["layer", "rms", "batch"])
def test_norms_equal_the_reference(norm_type: str, training: bool) -> None:
    module = randomise(build_norm(tiny_config(norm_type=norm_type, norm_eps=1e-3))).double().train(training)
    x, mask = inputs_of((17, 9, 5))
    statistics = (module.running_mean, module.running_var) if norm_type == "batch" and not training else None
    bias = getattr(module, "bias", None)
    expected = reference.norm(norm_type, x, module.weight, bias, 1e-3, mask, statistics)
    torch.testing.assert_close(module(x, mask)[mask], expected[mask], rtol=0, atol=1e-12)


@pytest.mark.parametrize("traced", [False, True])
def test_batch_norm_follows_torch_on_the_real_tokens(monkeypatch: pytest.MonkeyPatch, traced: bool) -> None:
    # Traced code, and that on other devices, must not ask which tokens are real.
    monkeypatch.setattr(norms, "can_check_values", lambda mask: not traced)
    module = build_norm(tiny_config(norm_type="batch")).double()
    plain = nn.BatchNorm1d(24, eps=module.eps).double()
    x, mask = inputs_of((17, 9, 5))
    for _ in range(3):
        torch.testing.assert_close(module(x, mask)[mask], plain(x[mask]), rtol=0, atol=1e-12)
    torch.testing.assert_close(module.running_mean, plain.running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(module.running_var, plain.running_var, rtol=0, atol=1e-12)
    torch.testing.assert_close(module.eval()(x, mask)[mask], plain.eval()(x[mask]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("real", [0, 1, 2])
def test_batch_norm_of_hardly_any_tokens_is_finite(real: int) -> None:
    module = build_norm(tiny_config(norm_type="batch")).double()
    for length in (max(real, 1), 3):
        mask = (torch.arange(length) < real)[None]
        assert torch.isfinite(module(torch.randn(1, length, 24).double(), mask)).all()
    assert torch.isfinite(module.running_mean).all() and torch.isfinite(module.running_var).all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("sizes", [(17, 17, 17), (17, 9, 5)], ids=["whole", "padded"])
def test_batch_norm_with_weights_in_half_precision(sizes: tuple[int, ...], training: bool) -> None:
    exact = randomise(build_norm(tiny_config(norm_type="batch"))).float().train(training)
    half = copy.deepcopy(exact).bfloat16()
    x, mask = inputs_of(sizes)
    x = x.float()
    found = half(x.bfloat16(), mask)
    assert found.dtype == torch.bfloat16
    assert relative_rms(found[mask].float(), exact(x, mask)[mask]) < 0.02
    assert relative_rms(half.running_var.float(), exact.running_var) < 0.02
