"""The layer against the float64 reference: every configuration, forward and gradients, odd sizes first."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import reference
from configurations import parametrize_configurations, tiny_config
from modeling_sft import SFTPointCloudModel, encoder_sft
from modeling_sft.encoder_sft import SFTLayer, build_norm
from modeling_sft.relation_point_cloud_sft import PointCloudGeometry
from modeling_sft.sampling_sft import Sample
from random_clouds import random_batch
from tiny_models import build, randomise

# (points per cloud): one cloud of odd size; three with padding, the last smaller than K = 7.
SIZES = ((63,), (17, 9, 5))


class Run(NamedTuple):
    """What a layer computed: its output, attention weights (B, H, N, K), sample, and the noise on the logits."""

    output: Tensor
    attentions: Tensor | None
    sample: Sample
    noise: Tensor | None


def build_layer(training: bool, seed: int = 0, **choice: Any) -> SFTLayer:
    torch.manual_seed(seed)
    model = randomise(SFTPointCloudModel(tiny_config(**(choice | {"num_hidden_layers": 1}))), seed).double()
    layer = next(module for module in model.modules() if isinstance(module, SFTLayer))
    return layer.train(training)


def run_layer(layer: SFTLayer, x: Tensor, batch: dict[str, Tensor], output_attentions: bool) -> Run:
    """Run with a fixed seed and record the sampler's draw."""
    config, drawn, recorded = layer.attention.config, [], {}
    rand_like = torch.rand_like

    def recording_rand_like(like: Tensor, **kwargs: Any) -> Tensor:
        drawn.append(rand_like(like, **kwargs))
        return drawn[-1]

    hooks = [
        layer.attention.sampler.register_forward_hook(lambda m, args, out: recorded.update(sample=out[0])),
        layer.attention.register_forward_hook(lambda m, args, out: recorded.update(attentions=out[1])),
    ]
    torch.manual_seed(7)
    torch.rand_like = recording_rand_like  # type: ignore[assignment]
    try:
        geometry = PointCloudGeometry(batch["points"].to(x.dtype), batch["normals"].to(x.dtype))
        output = layer(x, batch["attention_mask"].bool(), geometry, config.num_sampled_tokens, output_attentions)
    finally:
        torch.rand_like = rand_like
        for hook in hooks:
            hook.remove()
    noise = None
    if layer.training and config.sampling_noise > 0:
        (uniform,) = drawn
        noise = -config.sampling_noise * torch.log(-torch.log(uniform.double()))
    return Run(output, recorded["attentions"], recorded["sample"], noise)


def reference_state(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters()) | dict(layer.named_buffers())


def run_reference(layer: SFTLayer, x: Tensor, batch: dict[str, Tensor], run: Run) -> tuple[Tensor, Tensor]:
    mask = batch["attention_mask"].bool()
    geometry = reference.Geometry(batch["points"], batch["normals"])
    config, state = layer.attention.config, reference_state(layer)
    return reference.layer(state, config, x, mask, geometry, run.sample, layer.training, run.noise)


def rms(x: Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


def relative_rms(found: Tensor, expected: Tensor) -> float:
    return rms(found.double() - expected.double()) / rms(expected)


def gradients(loss: Tensor, x: Tensor, layer: nn.Module) -> dict[str, Tensor]:
    inputs = {"input": x, **dict(layer.named_parameters())}
    found = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    return {name: torch.zeros_like(inputs[name]) if g is None else g for name, g in zip(inputs, found, strict=True)}


def check_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    # Some gradients vanish by symmetry (a bias before a batch norm): the largest one sets the scale of rounding.
    floor = 1e-2 * max(rms(gradient) for gradient in wanted.values())
    for name, gradient in wanted.items():
        error = rms(found[name].double() - gradient.double()) / max(rms(gradient), floor)
        assert error < tolerance, f"{name}: {error}"


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

    run = run_layer(layer, x, batch, output_attentions=False)
    with_attentions = run_layer(layer, x, batch, output_attentions=True)
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
    run = run_layer(layer, single, batch, output_attentions=False)
    assert run.output.dtype == torch.float32

    double_layer, double = copy.deepcopy(layer).double(), single.detach().double().requires_grad_()
    expected, _ = run_reference(double_layer, double, batch, run)
    assert relative_rms(run.output[real], expected[real]) < 1e-5
    found = gradients((run.output * direction.float()).sum(), single, layer)
    wanted = gradients((expected * direction).sum(), double, double_layer)
    # Looser than the output: the relu of an almost empty row divides by little more than its eps of 1e-3.
    check_gradients(found, wanted, 1e-3)


@pytest.mark.parametrize("activation", ["linear", "gelu", "relu"])
def test_feed_forward_equals_the_reference(activation: str) -> None:
    layer = build_layer(False, hidden_act=activation)
    _, x, _ = inputs_of((17, 9, 5))
    expected = reference.feed_forward(reference_state(layer), x, activation)
    torch.testing.assert_close(layer.feed_forward(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm_type", ["layer", "rms", "batch"])
def test_norms_equal_the_reference(norm_type: str, training: bool) -> None:
    module = randomise(build_norm(tiny_config(norm_type=norm_type, norm_eps=1e-3))).double().train(training)
    batch, x, _ = inputs_of((17, 9, 5))
    mask = batch["attention_mask"].bool()
    statistics = (module.running_mean, module.running_var) if norm_type == "batch" and not training else None
    bias = getattr(module, "bias", None)
    expected = reference.norm(norm_type, x, module.weight, bias, 1e-3, mask, statistics)
    torch.testing.assert_close(module(x, mask)[mask], expected[mask], rtol=0, atol=1e-12)


@pytest.mark.parametrize("traced", [False, True])
def test_batch_norm_follows_torch_on_the_real_tokens(monkeypatch: pytest.MonkeyPatch, traced: bool) -> None:
    # Traced code, and that on other devices, must not ask which tokens are real.
    monkeypatch.setattr(encoder_sft, "can_check_values", lambda mask: not traced)
    module = build_norm(tiny_config(norm_type="batch")).double()
    plain = nn.BatchNorm1d(24, eps=module.eps).double()
    batch, x, _ = inputs_of((17, 9, 5))
    mask = batch["attention_mask"].bool()
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
    batch, x, _ = inputs_of(sizes)
    mask, x = batch["attention_mask"].bool(), x.detach().float()
    found = half(x.bfloat16(), mask)
    assert found.dtype == torch.bfloat16
    assert relative_rms(found[mask].float(), exact(x, mask)[mask]) < 0.02
    assert relative_rms(half.running_var.float(), exact.running_var) < 0.02


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_a_residual_scale_of_zero_leaves_the_identity_or_the_norms(norm_position: str) -> None:
    layer = build_layer(False, norm_position=norm_position, residual_scale_init=0.0)
    batch, x, _ = inputs_of((17, 9, 5))
    mask = batch["attention_mask"].bool()
    expected = x if norm_position == "pre" else layer.feed_forward_norm(layer.attention_norm(x, mask), mask)
    torch.testing.assert_close(run_layer(layer, x, batch, False).output, expected, rtol=0, atol=0)


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "drop_path_prob", "attention_probs_dropout_prob"])
def test_dropout_acts_in_training_only(field: str) -> None:
    batch, x, _ = inputs_of((17, 9, 5))
    for training in (True, False):
        plain = build_layer(training, sampling_noise=0.0)
        dropping = build_layer(training, sampling_noise=0.0, **{field: 0.5})
        same = torch.equal(run_layer(plain, x, batch, False).output, run_layer(dropping, x, batch, False).output)
        assert same is not training


def test_drop_path_removes_whole_branches_and_keeps_the_mean() -> None:
    layer = build_layer(True, drop_path_prob=0.25)
    branch = torch.ones(4000, 2, 24, dtype=torch.float64)
    torch.manual_seed(0)
    dropped = layer._residual(torch.zeros_like(branch), branch)
    assert all(len(row.unique()) == 1 for row in dropped[:50])
    assert abs(dropped.mean() - 1) < 0.05


@pytest.mark.parametrize("checkpointing", [False, True])
def test_inner_states_made_again_in_backward_give_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    def gradients() -> dict[str, torch.Tensor]:
        model = build(training=True)
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        model(**random_batch([17, 9]), labels=torch.tensor([0, 4])).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    expected = gradients()
    calls = []
    transform = encoder_sft.SFTFeedForward._transform
    monkeypatch.setattr(encoder_sft, "INNER_ELEMENTS_KEPT", 0)
    monkeypatch.setattr(
        encoder_sft.SFTFeedForward, "_transform", lambda self, states: calls.append(1) or transform(self, states)
    )
    torch.testing.assert_close(gradients(), expected, rtol=0, atol=1e-12)
    assert len(calls) > 2, "the inner states were kept"
