"""Cases and a suite for tests of the benchmark; at module level, so that child processes can import them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lab.benchmarks.cases import BenchmarkCase, BenchmarkSuite, Goal, Inputs, ModelSize, Workload

TINY = ModelSize(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    num_sampled_tokens=7,
    score_head_dim=5,
)


class Scaled(nn.Module):
    """Multiplies by one weight; then does what `behaviour` says."""

    def __init__(self, workload: Workload, behaviour: str = "", **options: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 3.0))
        self.behaviour, self.options, self.calls = behaviour, options, 0

    def forward(self, states: Tensor) -> Tensor:
        self.calls += 1
        if self.behaviour == "allocate":
            torch.ones(self.options["mib"] * 2**20 // 4)
        elif self.behaviour == "sleep":
            time.sleep(self.options["seconds"] if states.shape[1] > self.options["above"] else 0)
        elif self.behaviour == "exit":
            os._exit(3)
        elif self.behaviour == "raise":
            raise RuntimeError("no luck\nat all")
        elif self.behaviour == "interrupt" and self.calls > self.options["after"]:
            raise KeyboardInterrupt
        elif self.behaviour == "nan":
            return states * torch.nan
        elif self.behaviour == "crop":
            return states[:, 1:]
        return states * self.weight


def shapes(workload: Workload) -> tuple[tuple[int, ...], ...]:
    return ((workload.batch_size, workload.length, 2),)


def inputs(workload: Workload) -> Inputs:
    states = torch.randn(workload.batch_size, workload.length, 2, generator=workload.generator())
    return {"states": states.to(workload.dtype)}


def case(behaviour: str = "", **options: Any) -> BenchmarkCase:
    return BenchmarkCase(behaviour or "plain", partial(Scaled, behaviour=behaviour, **options), shapes)


def suite(**cases: BenchmarkCase) -> BenchmarkSuite:
    return BenchmarkSuite(
        name="test",
        description="",
        unit="tokens",
        size=TINY,
        lengths=(3, 5),
        batch_size=lambda length: 2,
        cases=cases,
        default_models=tuple(cases),
        reference=next(iter(cases)),
        inputs=inputs,
        warmup_length=3,
        goals=(Goal("fast", "slow", "training", 5, time_ratio=0.5, memory_ratio=0.2),),
    )


def workload(length: int = 5, batch_size: int = 2, size: ModelSize = TINY, **changes: Any) -> Workload:
    return Workload(replace(size), length, batch_size, **changes)
