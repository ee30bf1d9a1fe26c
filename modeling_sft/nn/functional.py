"""Functions of tensors that several rooms use."""

import torch
import torch.nn.functional as F
from torch import Tensor


def log_softplus(x: Tensor) -> Tensor:
    """Stable logarithm of softplus: x itself below -15, where softplus(x) is exp(x) to machine precision."""
    return torch.where(x < -15, x, F.softplus(x.clamp(min=-15)).log())


# Tokens whose sum is taken at once: their copies in float64 then take little memory.
SUMMED_AT_ONCE = 2**15


def sum_dtype(x: Tensor) -> torch.dtype:
    """Float64, in which the order of what is summed is lost when the sum is rounded; Apple's GPUs have none."""
    return x.dtype if x.device.type == "mps" else torch.float64


def sum_tokens(x: Tensor) -> Tensor:
    """Sum of `x` (B, N, C) over the tokens, (B, 1, C), to the last bit whatever their order."""
    parts = (x,) if torch.compiler.is_compiling() else x.split(SUMMED_AT_ONCE, dim=1)
    return torch.stack([part.sum(1, keepdim=True, dtype=sum_dtype(x)) for part in parts]).sum(0).to(x.dtype)


def gather_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Rows of `x` (B, N, C) at `indices` (B, ...), as (B, ..., C); negative indices give row 0."""
    batch, length, width = x.shape
    offsets = torch.arange(batch, device=x.device).view(-1, *[1] * (indices.dim() - 1)) * length
    flat = (indices.clamp(min=0) + offsets).flatten()
    return x.reshape(batch * length, width).index_select(0, flat).view(*indices.shape, width)
