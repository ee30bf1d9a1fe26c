"""The layer against the float64 reference: every configuration, forward and gradients, odd sizes first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference
from allocations import AllocationRecorder
from configurations import parametrize_configurations, tiny_config
from layers import Run, check_gradients, relative_rms, run_layer
from modeling_sft import SFTPointCloudModel
from modeling_sft.encoder.encoder import SFTLayer
from modeling_sft.point_cloud.relation import PointCloudGeometry
from random_clouds import random_batch
from tiny_models import build, randomise

# (points per cloud): one cloud of odd size; three with padding, the last smaller than K = 7.
SIZES = ((63,), (17, 9, 5))


def build_layer(training: bool, seed: int = 0, **choice: Any) -> SFTLayer:
    torch.manual_seed(seed)
    model = randomise(SFTPointCloudModel(tiny_config(**(choice | {"num_hidden_layers": 1}))), seed).double()
    layer = next(module for module in model.modules() if isinstance(module, SFTLayer))
    return layer.train(training)


def run_points(layer: SFTLayer, x: Tensor, batch: dict[str, Tensor], output_attentions: bool = False) -> Run:
    geometry = PointCloudGeometry(batch["points"].to(x.dtype), batch["normals"].to(x.dtype))
    return run_layer(layer, x, batch["attention_mask"].bool(), geometry, output_attentions)


def reference_state(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters()) | dict(layer.named_buffers())


def run_reference(layer: SFTLayer, x: Tensor, batch: dict[str, Tensor], run: Run) -> tuple[Tensor, Tensor]:
    mask = batch["attention_mask"].bool()
    geometry = reference.Geometry(batch["points"], batch["normals"])
    config, state = layer.attention.config, reference_state(layer)
    return reference.layer(state, config, x, mask, geometry, run.sample, layer.training, run.noise)


def gradients(loss: Tensor, x: Tensor, layer: nn.Module) -> dict[str, Tensor]:
    inputs = {"input": x, **dict(layer.named_parameters())}
    found = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    return {name: torch.zeros_like(inputs[name]) if g is None else g for name, g in zip(inputs, found, strict=True)}


def inputs_of(sizes: tuple[int, ...]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """A batch of geometry, token states x (B, N, D), and a direction that reduces the output to a loss."""
    batch = random_batch(sizes, seed=len(sizes))
    generator = torch.Generator().manual_seed(len(sizes))
    shape = (len(sizes), max(sizes), 24)
    x, direction = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return batch, x.requires_grad_(), direction * batch["attention_mask"][..., None]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("sizes", SIZES, ids=["B1-N63", "B3-N17"])
@parametrize_configurations()
def test_layer_equals_the_float64_reference(choice: dict[str, Any], sizes: tuple[int, ...], training: bool) -> None:
    layer = build_layer(training, **choice)
    batch, x, direction = inputs_of(sizes)
    real = batch["attention_mask"].bool()

    run = run_points(layer, x, batch, output_attentions=False)
    with_attentions = run_points(layer, x, batch, output_attentions=True)
    expected, attentions = run_reference(layer, x, batch, run)

    assert run.attentions is None
    torch.testing.assert_close(run.output[real], expected[real], rtol=0, atol=1e-10)
    torch.testing.assert_close(with_attentions.output, run.output, rtol=0, atol=1e-12)
    rows = real[:, None].expand(attentions.shape[:3])
    torch.testing.assert_close(with_attentions.attentions[rows], attentions[rows], rtol=0, atol=1e-10)

    found = gradients((run.output * direction).sum(), x, layer)
    wanted = gradients((expected * direction).sum(), x, layer)
    check_gradients(found, wanted, 1e-9)
    assert (found["input"][~real] == 0).all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@parametrize_configurations(full=False)
def test_layer_in_float32_is_close_to_the_float64_reference(choice: dict[str, Any], training: bool) -> None:
    layer = build_layer(training, **choice).float()
    batch, x, direction = inputs_of((17, 9, 5))
    real = batch["attention_mask"].bool()
    single = x.detach().float().requires_grad_()
    run = run_points(layer, single, batch, output_attentions=False)
    assert run.output.dtype == torch.float32

    double_layer, double = copy.deepcopy(layer).double(), single.detach().double().requires_grad_()
    expected, _ = run_reference(double_layer, double, batch, run)
    assert relative_rms(run.output[real], expected[real]) < 1e-5
    found = gradients((run.output * direction.float()).sum(), single, layer)
    wanted = gradients((expected * direction).sum(), double, double_layer)
    # Looser than the output: the relu of an almost empty row divides by little more than its eps of 1e-3.
    check_gradients(found, wanted, 1e-3)


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_a_residual_scale_of_zero_leaves_the_identity_or_the_norms(norm_position: str) -> None:
    layer = build_layer(False, norm_position=norm_position, residual_scale_init=0.0)
    batch, x, _ = inputs_of((17, 9, 5))
    mask = batch["attention_mask"].bool()
    expected = x if norm_position == "pre" else layer.feed_forward_norm(layer.attention_norm(x, mask), mask)
    torch.testing.assert_close(run_points(layer, x, batch).output, expected, rtol=0, atol=0)


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "drop_path_prob", "attention_probs_dropout_prob"])
def test_dropout_acts_in_training_only(field: str) -> None:
    batch, x, _ = inputs_of((17, 9, 5))
    for training in (True, False):
        plain = build_layer(training, sampling_noise=0.0)
        dropping = build_layer(training, sampling_noise=0.0, **{field: 0.5})
        same = torch.equal(run_points(plain, x, batch).output, run_points(dropping, x, batch).output)
        assert same is not training


def test_drop_path_removes_whole_branches_and_keeps_the_mean() -> None:
    layer = build_layer(True, drop_path_prob=0.25)
    branch = torch.ones(4000, 2, 24, dtype=torch.float64)
    torch.manual_seed(0)
    dropped = layer._residual(torch.zeros_like(branch), branch)
    assert all(len(row.unique()) == 1 for row in dropped[:50])
    assert abs(dropped.mean() - 1) < 0.05


@pytest.mark.parametrize("training", [True, False])
def test_slots_beyond_the_tokens_take_no_memory_and_change_nothing(training: bool) -> None:
    peaks, outputs = [], []
    batch = random_batch([7, 5], dtype=torch.float64)
    for k in (9, 5_000):
        model = build(SFTPointCloudModel, training=training, num_sampled_tokens=k, num_extra_tokens=2)
        torch.manual_seed(0)
        with AllocationRecorder() as recorder:
            outputs.append(model(**batch).last_hidden_state.detach())
        peaks.append(recorder.peak)
    assert peaks[0] == peaks[1]
    assert torch.equal(*outputs)
