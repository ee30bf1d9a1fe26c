"""The suite `kernels` for GPUs: the Triton kernels at sizes for which a lower bound of their time is known."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .attention_suites import attention_inputs, attention_shapes
from .cases import BenchmarkCase, BenchmarkSuite, ModelSize, Workload
from .sft_modules import AttentionFunction


class OperandCopy(nn.Module):
    """A copy of queries of 64 channels, as large as the outputs: it shows the time that moving the bytes takes."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        ((batch, heads, length, channels),) = attention_shapes(workload)
        self.query = nn.Parameter(torch.randn(batch, heads, length, channels, generator=workload.generator()))

    def forward(self, valid: Tensor) -> Tensor:
        """The queries `(B, H, N, d)`."""
        return self.query.clone()


def _kernel(score: str, probability: str, channels: int, backend: str = "sft_triton") -> BenchmarkCase:
    leak = backend != "sdpa"
    build = partial(
        AttentionFunction, backend=backend, score=score, probability=probability, leak=leak, score_channels=channels
    )
    return BenchmarkCase(f"{score}, {probability}, d_s = {channels}: {backend}", build, attention_shapes, is_sft=True)


KERNELS = BenchmarkSuite(
    name="kernels",
    description="the Triton kernels by score width, against the bytes they must move (for --device cuda)",
    unit="queries",
    size=ModelSize(hidden_size=512, num_attention_heads=8),
    lengths=(65_536,),
    batch_size=lambda length: 1,
    cases={
        "copy": BenchmarkCase("copy of the queries", OperandCopy, attention_shapes),
        "maxout_8": _kernel("maxout", "relu", 8),
        "maxout_16": _kernel("maxout", "relu", 16),
        "maxout_64": _kernel("maxout", "relu", 64),
        "dot_64": _kernel("dot", "softmax", 64),
        "sdpa_64": _kernel("dot", "softmax", 64, "sdpa"),
    },
    default_models=("copy", "maxout_8", "maxout_16", "maxout_64", "dot_64", "sdpa_64"),
    reference="copy",
    inputs=attention_inputs,
    note="One maximum and one sum per pair and channel would take an H100 (132 processors of 128 lanes, about 2 GHz) "
    "0.064, 0.13 and 0.51 ms at d_s = 8, 16 and 64 in the forward pass: arithmetic, not a measurement.",
)
