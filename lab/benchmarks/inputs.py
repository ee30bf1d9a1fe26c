"""Random inputs that several suites share."""

from __future__ import annotations

import torch
from torch import Tensor

from .cases import Inputs, Workload


def random_states(workload: Workload) -> Tensor:
    """Standard normal states `(B, N, D)`."""
    shape = (workload.batch_size, workload.length, workload.size.hidden_size)
    return torch.randn(shape, generator=workload.generator()).to(workload.device, workload.dtype)


def random_surfaces(workload: Workload) -> Inputs:
    """Points of dented spheres and approximate unit normals, both `(B, N, 3)` in float32."""
    generator = workload.generator()
    normals = torch.randn(workload.batch_size, workload.length, 3, generator=generator)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    radius = 1 + 0.2 * torch.sin(5 * normals).prod(-1, keepdim=True)
    return {"points": (radius * normals).to(workload.device), "normals": normals.to(workload.device)}
