"""The machine code of the Triton kernels: how it is counted, and what the default configuration becomes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.benchmarks import machine_code
from paths import ROOT

LOOPS = [
    (0x00, "MOV R1, R2"),
    (0x10, "FADD R1, R1, R2"),
    (0x20, "BRA 0x10"),
    (0x30, "BAR.SYNC.DEFER_BLOCKING 0x0"),
    (0x40, "BRA 0x0"),
    (0x50, "BRA 0x50"),
]


def test_inner_loops_are_jumps_back_without_others_inside() -> None:
    assert machine_code._inner_loops(LOOPS) == [(0x10, 0x20)]


@pytest.mark.parametrize(
    ("instruction", "is_fence"),
    [("MEMBAR.SC.GPU", True), ("MEMBAR.ALL.CTA", False), ("CCTL.IVALL", True), ("ERRBAR", True), ("FADD R1", False)],
)
def test_fences_of_the_gpu_are_told_from_those_of_a_program(instruction: str, is_fence: bool) -> None:
    assert bool(machine_code.GPU_FENCE.match(instruction)) == is_fence


def compiled(*options: str, path: Path) -> list[dict[str, str]]:
    """The table of a run in another process, because this one interprets kernels."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "scripts/machine_code.py", "--output", str(path), *options]
    result = subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_kernels_of_the_default_configuration_neither_spill_nor_fence_nor_wait(tmp_path: Path) -> None:
    rows = compiled("--relations", "none", "--dtypes", "bfloat16", "--max_stack", "0", path=tmp_path / "table.csv")
    assert len(rows) == 3
    assert all(row["stack_bytes"] == row["gpu_fences"] == row["inner_waits"] == "0" for row in rows)
    assert max(int(loop) for row in rows for loop in row["inner_loops"].split()) < 150


@pytest.mark.full
def test_kernels_of_every_configuration_spill_little_and_have_no_fences(tmp_path: Path) -> None:
    rows = compiled("--scores", "maxout", "dot", "--probabilities", "relu", "softmax", path=tmp_path / "table.csv")
    assert len(rows) == 3 * 2 * 2 * 4 * 3
