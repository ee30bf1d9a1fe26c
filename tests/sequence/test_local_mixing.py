"""Local mixing of sequences: the convolution against a loop, windows of any size, padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import reference
from configurations import tiny_sequence_config
from modeling_sft import SFTModel
from modeling_sft.sequence.local_mixing import SFTConvolutionMixing
from tiny_models import build, build_sequence

SIZES = (1, 4, 5, 8)


def mixing(size: int) -> SFTConvolutionMixing:
    torch.manual_seed(size)
    return SFTConvolutionMixing(tiny_sequence_config(local_mixing_size=size)).double()


def tokens(length: int = 11) -> tuple[Tensor, Tensor]:
    """States of four rows: whole, padded on the right, on the left, on both sides to a single token."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, length, 24, generator=generator, dtype=torch.float64)
    place = torch.arange(length)
    rows = [place >= 0, place < length - 4, place >= 3, place == length // 2]
    return x, torch.stack(rows)


@pytest.mark.parametrize("length", [1, 3, 11])
@pytest.mark.parametrize("size", SIZES)
def test_outputs_and_gradients_equal_a_loop(size: int, length: int) -> None:
    module, (x, mask) = mixing(size), tokens(max(length, 5))
    x, mask = x[:, :length].clone().requires_grad_(), mask[:, :length]
    state = {f"local_mixing.{name}": value for name, value in module.named_parameters()}
    expected, found = reference.convolution_mixing(state, x, mask), module(x, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = [x, *module.parameters()]
    gradients = [torch.autograd.grad((value * direction).sum(), inputs) for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
    assert (gradients[0][0][~mask] == 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_padding_does_not_leak(size: int) -> None:
    module, (x, mask) = mixing(size), tokens()
    expected = module(x, mask)
    torch.testing.assert_close(module(x.masked_fill(~mask[..., None], 1e6), mask), expected, rtol=0, atol=1e-12)
    for row, real in enumerate(mask):
        alone = module(x[row : row + 1, real], real[None, real])
        torch.testing.assert_close(expected[row, real], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "behind", "ahead"), [(1, 0, 0), (4, 2, 1), (5, 2, 2), (8, 4, 3)])
def test_a_token_sees_its_window_and_no_more(size: int, behind: int, ahead: int) -> None:
    module, x = mixing(size), torch.zeros(1, 21, 24, dtype=torch.float64)
    mask = torch.ones(1, 21, dtype=torch.bool)
    changed = x.clone()
    changed[0, 10] = 1.0
    seen = (module(changed, mask) != module(x, mask)).any(-1)[0].nonzero().flatten().tolist()
    assert seen == list(range(10 - ahead, 10 + behind + 1))


@pytest.mark.parametrize("size", SIZES)
def test_outputs_start_with_the_variance_of_their_inputs(size: int) -> None:
    config = tiny_sequence_config(hidden_size=240, num_attention_heads=3, local_mixing_size=size)
    torch.manual_seed(0)
    module = SFTModel(config).encoder.layers[0].local_mixing
    x = torch.randn(2, 300, 240)
    deviation = float(module(x, torch.ones(2, 300, dtype=torch.bool)).std())
    assert 0.85 < deviation < 1.15


def test_every_layer_of_a_sequence_model_mixes_and_clouds_do_so_in_their_embeddings() -> None:
    with_mixing, without = (build_sequence(SFTModel, local_mixing=choice) for choice in (True, False))
    assert all(isinstance(layer.local_mixing, SFTConvolutionMixing) for layer in with_mixing.encoder.layers)
    assert not [name for name, _ in without.named_parameters() if "local_mixing" in name]
    assert all(layer.local_mixing is None for layer in build().sft.encoder.layers)


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_without_attention_and_feed_forward_a_layer_is_its_mixing(norm_position: str) -> None:
    model = build_sequence(SFTModel, norm_position=norm_position, relation=False)
    layer, (x, mask) = model.encoder.layers[0], tokens()
    for module in (layer.attention.o_proj, layer.feed_forward.down_proj):
        module.weight.data.zero_()
        module.bias.data.zero_()
    norm, scale = layer.local_mixing_norm, layer.residual_scale
    if norm_position == "pre":
        expected = x + scale * layer.local_mixing(norm(x, mask), mask)
    else:
        expected = norm(x + scale * layer.local_mixing(x, mask), mask)
        expected = layer.feed_forward_norm(layer.attention_norm(expected, mask), mask)
    torch.testing.assert_close(layer(x, mask, None, 7)[mask], expected[mask], rtol=0, atol=1e-12)
