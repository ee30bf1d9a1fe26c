"""What a benchmark consists of: sizes, workloads, cases to compare, and suites of cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

Shapes = tuple[tuple[int, ...], ...]
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class ModelSize:
    """Sizes that all models of a suite share; a model ignores the ones that it does not use."""

    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    num_sampled_tokens: int = 256
    score_head_dim: int = 8


class Workload(NamedTuple):
    """One input size on one device in one precision.

    Attributes:
        size: sizes of the models.
        length: N, the tokens of one sample.
        batch_size: B.
        dtype: dtype of weights and activations.
        device: device, as `torch.device` takes it.
        seed: seed of weights and inputs.
    """

    size: ModelSize
    length: int
    batch_size: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    seed: int = 0

    def generator(self) -> torch.Generator:
        """A CPU generator with this workload's seed, so that inputs are the same on every device."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class BenchmarkCase:
    """One model to be compared, or one function wrapped as a module.

    Attributes:
        label: name in tables and figures.
        build: makes the module on the CPU in float32. The module takes the inputs of the suite by name, and returns a
            tensor or a tuple of tensors.
        output_shapes: gives the shapes of what the module returns.
        is_sft: whether its attention backend is first compared with the eager computation in float64.
    """

    label: str
    build: Callable[[Workload], nn.Module]
    output_shapes: Callable[[Workload], Shapes]
    is_sft: bool = False


class Goal(NamedTuple):
    """The ratios of time and memory to another case that a case must reach, from a length on."""

    case: str
    other: str
    mode: str
    min_length: int
    time_ratio: float | None = None
    memory_ratio: float | None = None


@dataclass(frozen=True)
class BenchmarkSuite:
    """Cases that share their inputs.

    Attributes:
        name: name on the command line.
        description: description in one line.
        unit: what a length counts.
        size: default sizes.
        lengths: default lengths.
        batch_size: default batch size for a length.
        cases: the cases by their names on the command line.
        default_models: names of the cases that run unless others are asked for.
        reference: name of the case that ratios are relative to.
        inputs: makes the inputs, on the workload's device.
        warmup_length: largest length of the warm-up before peak memory is measured.
        goals: see [`Goal`].
        note: a further remark for the report.
    """

    name: str
    description: str
    unit: str
    size: ModelSize
    lengths: tuple[int, ...]
    batch_size: Callable[[int], int]
    cases: Mapping[str, BenchmarkCase]
    default_models: tuple[str, ...]
    reference: str
    inputs: Callable[[Workload], Inputs]
    warmup_length: int = 1024
    goals: tuple[Goal, ...] = ()
    note: str = ""
