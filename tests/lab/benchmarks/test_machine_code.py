"""The machine code of the Triton kernels: how it is counted, and what the default configuration becomes."""

from __future__ import annotations

import pytest

from lab.benchmarks import machine_code

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
