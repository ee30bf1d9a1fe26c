"""Time and memory of passes: CPU seconds of the process, or seconds of a CUDA stream."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .cases import BenchmarkCase, Inputs, Workload

MODES = ("inference", "training")
MIB = 2**20
_STATUS = Path("/proc/self/status")
_CLEAR_PEAK = Path("/proc/self/clear_refs")


class Step:
    """One pass of a case: inference, or forward and backward up to the gradients of all weights.

    Training sends fixed noise as the gradient into the outputs, because the gradient of their mean square would vanish
    in a final layer norm.

    Args:
        case: what to run.
        workload: the size, device and precision to run it at.
        mode: `"inference"` or `"training"`.
        inputs: inputs of the suite for the workload.
    """

    def __init__(self, case: BenchmarkCase, workload: Workload, mode: str, inputs: Inputs) -> None:
        self.case, self.workload, self.mode, self.inputs = case, workload, mode, inputs
        torch.manual_seed(workload.seed)
        self.module = case.build(workload).to(workload.device, workload.dtype).train(mode == "training")
        generator = workload.generator()
        self.cotangents = [
            torch.randn(shape, generator=generator).to(workload.device, workload.dtype)
            for shape in (case.output_shapes(workload) if mode == "training" else ())
        ]

    def forward(self) -> tuple[Tensor, ...]:
        """The outputs, with their autograd graph if gradients are enabled."""
        outputs = self.module(**self.inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def __call__(self) -> tuple[Tensor, ...]:
        """Run the pass and return its detached outputs; gradients are dropped."""
        if self.mode == "inference":
            with torch.no_grad():
                return self.forward()
        outputs = self.forward()
        torch.autograd.backward(outputs, self.cotangents)
        self.module.zero_grad(set_to_none=True)
        return tuple(output.detach() for output in outputs)

    def checked(self) -> tuple[Tensor, ...]:
        """Run the pass and check its outputs.

        Raises:
            ValueError: an output has the wrong shape, or is not finite.
        """
        outputs = self()
        shapes, expected = tuple(tuple(output.shape) for output in outputs), self.case.output_shapes(self.workload)
        if shapes != expected:
            raise ValueError(f"outputs of shapes {shapes}, expected {expected}")
        if not all(bool(output.isfinite().all()) for output in outputs):
            raise ValueError("an output is not finite")
        return outputs

    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def seconds_of(step: Callable[[], object], repeats: int, device: str) -> float:
    """Average seconds of one pass over repeats, as CPU seconds of all threads or as time of the CUDA stream."""
    if torch.device(device).type == "cuda":
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(repeats):
            step()
        stop.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(stop) / 1000 / repeats
    begin = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - begin) / repeats


class Timing(NamedTuple):
    """The seconds per pass in each round, and the number of passes in a round."""

    seconds: list[float]
    repeats: int


def time_in_turn(
    steps: Mapping[str, Step],
    rounds: int,
    min_seconds: float,
    timings: dict[str, Timing],
    failures: dict[str, str],
    advance: Callable[[str], None] = lambda name: None,
) -> None:
    """Warm up every step, then time them in turn, round by round, so that all see the same state of the machine.

    Args:
        steps: steps by name, all on one device.
        rounds: how often each step is timed.
        min_seconds: a round repeats a step until it takes about that long.
        timings: filled as results come, so that they outlive an interruption.
        failures: filled with the steps that raise and what they raise; these steps are left out from then on.
        advance: called with a name before each timing.
    """
    for name, step in steps.items():
        advance(name)
        try:
            step.checked()
            warm = seconds_of(step, 1, step.workload.device)
        except Exception as error:  # a peer may fail in any way, and the others must go on
            failures[name] = describe_failure(error)
        else:
            timings[name] = Timing([], max(1, math.ceil(min_seconds / max(warm, 1e-9))))
    for _ in range(rounds):
        for name in list(timings):
            advance(name)
            timing = timings[name]
            try:
                timing.seconds.append(seconds_of(steps[name], timing.repeats, steps[name].workload.device))
            except Exception as error:
                failures[name] = describe_failure(error)
                del timings[name]


def describe_failure(error: Exception) -> str:
    """`"out of memory"`, or the kind and first line of the error."""
    text = str(error)
    phrases = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(phrase in text for phrase in phrases):
        return "out of memory"
    first_line = text.strip().partition("\n")[0][:300]
    return f"failed: {type(error).__name__}: {first_line}"


def process_memory_mib(field: str) -> float:
    """A field of this process's /proc status, such as `VmHWM`, in MiB."""
    return int(_STATUS.read_text(encoding="utf-8").split(f"{field}:")[1].split()[0]) / 1024


def knows_process_memory() -> bool:
    """Whether this system reports the peak memory of a process, as only Linux does."""
    return _STATUS.is_file()


def peak_mib_of(step: Step) -> float:
    """Peak memory of one pass beyond the memory in use before it: activations, gradients, temporaries.

    On the CPU it counts pages of the process, which is exact if freed blocks go back to the system at once; see
    `isolation`.
    """
    device = step.workload.device
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        in_use = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - in_use) / MIB
    try:
        _CLEAR_PEAK.write_text("5", encoding="ascii")  # resets VmHWM to VmRSS
        before = process_memory_mib("VmRSS")
    except OSError:
        before = process_memory_mib("VmHWM")
    step()
    return process_memory_mib("VmHWM") - before
