"""Functions of tensors that several rooms use."""

import torch
import torch.nn.functional as F
from torch import Tensor


def log_softplus(x: Tensor) -> Tensor:
    """Stable logarithm of softplus: x itself below -15, where softplus(x) is exp(x) to machine precision."""
    return torch.where(x < -15, x, F.softplus(x.clamp(min=-15)).log())


def gather_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Rows of `x` (B, N, C) at `indices` (B, ...), as (B, ..., C); negative indices give row 0."""
    batch, length, width = x.shape
    offsets = torch.arange(batch, device=x.device).view(-1, *[1] * (indices.dim() - 1)) * length
    flat = (indices.clamp(min=0) + offsets).flatten()
    return x.reshape(batch * length, width).index_select(0, flat).view(*indices.shape, width)
