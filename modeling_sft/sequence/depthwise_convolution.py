"""Depthwise convolution over tokens `(B, N, D)` with a faster weight gradient for wide windows.

On the CPU, PyTorch's gradient of depthwise weights takes time in proportion to the width. Here it is a matrix product
over blocks of tokens, to which a wider window only adds columns.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import maybe_autocast

# Tokens of one block. Each product has this many rows and block plus width columns, and its diagonals are summed.
BLOCK = 64
# PyTorch computes the gradient of windows up to this width.
SMALL_WIDTH = 8


def depthwise_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel with its own window; tokens outside the sequence count as zeros.

    Args:
        x: `(B, N, D)`.
        weight: `(D, 1, k)`. Token i sees tokens i - k // 2 to i + (k - 1) // 2.
        bias: `(D,)`, or `None`.

    Returns:
        `(B, N, D)`.
    """
    if x.device.type != "cpu":
        return _convolve(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    # Avoid half precision: oneDNN (torch 2.13) hangs on wide bfloat16 windows over few channels.
    with maybe_autocast("cpu", enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        inputs, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        needs_gradient = torch.is_grad_enabled() and weight.requires_grad
        if weight.shape[-1] <= SMALL_WIDTH or torch.compiler.is_compiling() or not needs_gradient:
            return _convolve(inputs, weight, bias).to(x.dtype)
        mixed = _DepthwiseConvolution.apply(inputs, weight)
        return (mixed if bias is None else mixed + bias).to(x.dtype)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    before, after = weight.shape[-1] // 2, (weight.shape[-1] - 1) // 2
    states, padding = x.mT, after
    if before != after:
        states, padding = F.pad(states, (before, after)), 0
    # Treat the states as an image of height 1 with channels last, which needs no transposition.
    mixed = F.conv2d(states[:, :, None], weight[:, :, None], bias, padding=(0, padding), groups=len(weight))
    return mixed.squeeze(2).mT


def _channels_first(x: Tensor) -> Tensor:
    # Transpose as a matrix, for which PyTorch has a fast transposition.
    return x.flatten(0, 1).t().contiguous().view(x.shape[2], *x.shape[:2])


class _DepthwiseConvolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return _convolve(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        size, length, width = weight.shape[-1], x.shape[1], x.shape[2]
        before, after = size // 2, (size - 1) // 2
        flipped = F.pad(grad, (0, 0, after, before)).mT[:, :, None]
        grad_x = F.conv2d(flipped, weight.flip(-1)[:, :, None], groups=width).squeeze(2).mT
        # Multiply blocks of the gradient (D, BLOCK, M) by blocks of the padded input (D, M, BLOCK + k - 1).
        more = -length % BLOCK
        blocks = F.pad(_channels_first(grad), (0, more)).view(width, -1, BLOCK)
        padded = F.pad(_channels_first(x), (before, after + more))
        windows = padded.unfold(2, BLOCK + size - 1, BLOCK).reshape(width, -1, BLOCK + size - 1)
        products = blocks.mT @ windows
        # In row r of a block, tap t of the window is at column r + t.
        columns = torch.arange(BLOCK, device=x.device)[:, None] + torch.arange(size, device=x.device)
        grad_weight = products.gather(2, columns.expand(width, -1, -1)).sum(1)
        return grad_x, grad_weight[:, None]
