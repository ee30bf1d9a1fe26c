"""First passes in child processes: a model may run out of memory or time there, and its peak memory is its own."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import NamedTuple

import torch

from .cases import BenchmarkCase, Inputs, Workload
from .measure import MIB, Step, describe_failure, knows_process_memory, peak_mib_of, process_memory_mib

# Time for building the model and for a short warm-up, which may compile.
SETUP_SECONDS = 600
EXIT_SECONDS = 10


class Limits(NamedTuple):
    """Limits of one pass: GiB beyond the model and its inputs, seconds on the clock, threads."""

    memory_gib: float
    seconds: float
    threads: int = 1


class Probe(NamedTuple):
    """How a first pass went.

    Attributes:
        status: `"ok"`, `"out of memory"`, `"> 60 s"`, or `"failed: ..."`.
        peak_mib: peak memory beyond the model and its inputs, if known.
    """

    status: str
    peak_mib: float | None = None


def can_isolate() -> bool:
    """Whether child processes under a memory limit work here, which takes Linux."""
    return knows_process_memory() and "forkserver" in multiprocessing.get_all_start_methods()


def probe_in_child(
    case: BenchmarkCase,
    inputs: Callable[[Workload], Inputs],
    warmup_length: int,
    workload: Workload,
    mode: str,
    limits: Limits,
) -> Probe:
    """Run one pass on the CPU in a child process; arguments must be picklable.

    Args:
        case, workload, mode: see [`Step`].
        inputs: makes the inputs of the suite.
        warmup_length: largest length of the pass that loads code and buffers before the measured one.
        limits: limits of the pass.
    """
    context = _server()
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, case, inputs, warmup_length, workload, mode, limits)
    process = context.Process(target=_probe, args=arguments)
    process.start()
    sender.close()
    try:
        outcome = _receive(receiver, SETUP_SECONDS)
        if outcome == "ready":
            outcome = _receive(receiver, limits.seconds)
        if isinstance(outcome, Probe):
            process.join(EXIT_SECONDS)  # give the child time to clean up
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, Probe):
        return outcome
    if outcome == "timeout":
        return Probe(f"> {limits.seconds:g} s")
    # When memory runs out, the system kills the largest process, which is the child.
    return Probe("out of memory" if process.exitcode == -signal.SIGKILL else f"failed: exit code {process.exitcode}")


def probe_here(step: Step, limits: Limits) -> Probe:
    """Run one pass in this process; only the machine limits memory, and the time limit is checked afterwards."""
    on_cuda = torch.device(step.workload.device).type == "cuda"
    try:
        step.checked()
        if on_cuda:
            torch.cuda.synchronize(step.workload.device)
        start = time.perf_counter()
        peak = peak_mib_of(step) if on_cuda else None
        if not on_cuda:
            step()
        seconds = time.perf_counter() - start
    except Exception as error:  # a peer may fail in any way, and the others must go on
        if on_cuda:
            torch.cuda.empty_cache()
        return Probe(describe_failure(error))
    return Probe("ok" if seconds <= limits.seconds else f"> {limits.seconds:g} s", peak)


def _receive(receiver: Connection, seconds: float) -> object:
    """What the child sent: `"ready"`, a [`Probe`], or `None` if it died; `"timeout"` if it sent nothing in time."""
    if not receiver.poll(seconds):
        return "timeout"
    try:
        return receiver.recv()
    except EOFError:
        return None


def _server() -> ForkServerContext:
    """A server that has imported this module, so that its children start in a fraction of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    previous = os.environ.get("MALLOC_MMAP_THRESHOLD_")
    # With a fixed threshold, freed blocks return to the system at once, so the peak counts live tensors only.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if previous is None:
            del os.environ["MALLOC_MMAP_THRESHOLD_"]
        else:
            os.environ["MALLOC_MMAP_THRESHOLD_"] = previous
    return context


def _probe(
    sender: Connection,
    case: BenchmarkCase,
    inputs: Callable[[Workload], Inputs],
    warmup_length: int,
    workload: Workload,
    mode: str,
    limits: Limits,
) -> None:
    """Run in the child: send `"ready"` when the measured pass begins, then the [`Probe`]."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    torch.set_num_threads(limits.threads)
    try:
        short = workload._replace(length=min(workload.length, warmup_length))
        Step(case, short, mode, inputs(short))()
        step = Step(case, workload, mode, inputs(workload))
        in_use = int(process_memory_mib("VmData") * MIB)
        limit = in_use + int(limits.memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        sender.send("ready")
        sender.send(Probe("ok", peak_mib_of(step)))
    except Exception as error:  # a peer may fail in any way
        sender.send(Probe(describe_failure(error)))
