"""Layers run under a fixed seed, with what they drew, and comparisons of gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from modeling_sft.encoder.encoder import SFTLayer
from modeling_sft.sampling.sample import Sample


class Run(NamedTuple):
    """What a layer computed: its output, attention weights (B, H, N, K), sample, and the noise on the logits."""

    output: Tensor
    attentions: Tensor | None
    sample: Sample
    noise: Tensor | None


def run_layer(layer: SFTLayer, x: Tensor, mask: Tensor, relation_inputs: Any, output_attentions: bool = True) -> Run:
    """Run with a fixed seed and record the sampler's draw."""
    config, drawn, recorded, rand_like = layer.attention.config, [], {}, torch.rand_like

    def recording(like: Tensor, **kwargs: Any) -> Tensor:
        drawn.append(rand_like(like, **kwargs))
        return drawn[-1]

    hooks = [
        layer.attention.sampler.register_forward_hook(lambda m, args, out: recorded.update(sample=out[0])),
        layer.attention.register_forward_hook(lambda m, args, out: recorded.update(attentions=out[1])),
    ]
    torch.manual_seed(7)
    torch.rand_like = recording  # type: ignore[assignment]
    try:
        output = layer(x, mask, relation_inputs, config.num_sampled_tokens, output_attentions)
    finally:
        torch.rand_like = rand_like
        for hook in hooks:
            hook.remove()
    noise = None
    if layer.training and config.sampling_noise > 0:
        noise = -config.sampling_noise * torch.log(-torch.log(drawn[0].double()))
    return Run(output, recorded["attentions"], recorded["sample"], noise)


def rms(x: Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


def relative_rms(found: Tensor, expected: Tensor) -> float:
    return rms(found.double() - expected.double()) / rms(expected)


def check_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    # Some gradients vanish by symmetry (a bias before a batch norm): the largest one sets the scale of rounding.
    floor = 1e-2 * max(rms(gradient) for gradient in wanted.values())
    for name, gradient in wanted.items():
        error = rms(found[name].double() - gradient.double()) / max(rms(gradient), floor)
        assert error < tolerance, f"{name}: {error}"


def assert_same_sample(alone: Tensor, together: Tensor) -> None:
    """The same tokens of one row, alone `(S, K)` and in a batch of longer rows, where more slots stay empty."""
    more = together.shape[-1] - alone.shape[-1]
    unused, used = together.sort(-1).values.split([more, alone.shape[-1]], dim=-1)
    assert torch.equal(alone.sort(-1).values, used) and bool((unused == -1).all())
