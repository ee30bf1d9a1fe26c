"""The depthwise convolution and its own weight gradient against PyTorch's, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling_sft.sequence.depthwise_convolution import depthwise_convolution


def operands(batch: int, length: int, width: int, size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(length * size)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return draw(batch, length, width), draw(width, 1, size), draw(width)


def by_library(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    size = weight.shape[-1]
    return F.conv1d(F.pad(x.mT, (size // 2, (size - 1) // 2)), weight, bias, groups=len(weight)).mT


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9, 12, 31, 65])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 63), (2, 64), (2, 65), (1, 200)])
def test_values_and_gradients_are_those_of_the_library(batch: int, length: int, size: int) -> None:
    inputs = operands(batch, length, 5, size)
    grad = torch.randn(batch, length, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, expected = depthwise_convolution(*inputs), by_library(*inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)


def test_gradients_of_gradients_are_right() -> None:
    x, weight, bias = operands(2, 7, 3, 11)
    assert torch.autograd.gradgradcheck(depthwise_convolution, (x, weight, bias))


@pytest.mark.parametrize(("width", "size"), [(6, 31), (8, 31), (16, 31), (24, 5)])
def test_windows_train_under_autocast(width: int, size: int) -> None:
    # Of these sizes, the library's own bfloat16 convolution does not return from the first three.
    inputs = operands(2, 70, width, size, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = depthwise_convolution(*inputs).float().square().mean()
    loss.backward()
    expected = torch.autograd.grad(by_library(*inputs).square().mean(), inputs)
    for tensor, right in zip(inputs, expected, strict=True):
        assert tensor.grad is not None and tensor.grad.dtype == torch.float32
        assert (tensor.grad - right).norm() < 0.02 * right.norm()


def test_per_sample_gradients_by_torch_func() -> None:
    x, weight, bias = (tensor.detach() for tensor in operands(3, 20, 4, 15))

    def loss(w: Tensor, row: Tensor) -> Tensor:
        return depthwise_convolution(row[None], w, bias).square().sum()

    found = torch.stack([torch.func.grad(loss)(weight, row) for row in x])
    expected = torch.stack(
        [torch.func.grad(lambda w, r=row: by_library(r[None], w, bias).square().sum())(weight) for row in x]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
