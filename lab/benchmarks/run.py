"""A whole benchmark: check, probe, time in turn, write results, draw."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from modeling_sft.hub.optional import import_optional
from modeling_sft.training.environment import describe_environment, processor_name

from .cases import BenchmarkCase, BenchmarkSuite, ModelSize, Workload
from .correctness import check_peer, check_sft
from .figures import plot_results
from .isolation import Limits, Probe, can_isolate, probe_here, probe_in_child
from .measure import MODES, Step, Timing, describe_failure, time_in_turn
from .report import markdown_report
from .results import ResultRow, ResultsFile
from .sft_modules import backends_used
from .suites import SUITES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CorrectnessError(RuntimeError):
    """An SFT backend differs from the eager computation in float64."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """What to run and how.

    Attributes:
        suite: a key of `SUITES`.
        output_dir: folder for results.csv, table.md, the figure and environment.json.
        lengths: values of N; `None` for the lengths of the suite.
        models: cases of the suite, or `["all"]`; `None` for the suite's default ones.
        modes: `"inference"`, `"training"` or both.
        dtypes: keys of `DTYPES`.
        device: `"cpu"`, `"cuda"` or `"cuda:<index>"`.
        rounds: how often each case is timed.
        min_seconds: a round repeats a pass until it takes about that long.
        threads: number of CPU threads.
        seed: seed of weights and inputs.
        memory: on the CPU, run a first pass in a child process, which measures peak memory under the limits.
        memory_limit_gib: memory beyond the model for one pass in a child process.
        time_limit_s: seconds for one pass.
        batch_size: B; `None` for the batch size of the suite.
        size: fields of [`ModelSize`] that replace the suite's.
        append: keep the results in `output_dir`, and measure only what is not in them with status `"ok"`.
    """

    suite: str
    output_dir: Path
    lengths: Sequence[int] | None = None
    models: Sequence[str] | None = None
    modes: Sequence[str] = MODES
    dtypes: Sequence[str] = ("float32",)
    device: str = "cpu"
    rounds: int = 5
    min_seconds: float = 0.2
    threads: int = 1
    seed: int = 0
    memory: bool = True
    memory_limit_gib: float = 8.0
    time_limit_s: float = 60.0
    batch_size: int | None = None
    size: dict[str, int] | None = None
    append: bool = False


def run_benchmark(settings: BenchmarkSettings) -> list[ResultRow]:
    """Run a benchmark, print checks and tables, and write everything to `settings.output_dir`.

    An interruption (KeyboardInterrupt) keeps what was measured: rows are written as they come, and the tables and the
    figure are made from them before the interruption is raised again.

    Returns:
        The suite's rows in results.csv.

    Raises:
        ValueError: a setting is not possible.
        CorrectnessError: an SFT case computes wrong values; then nothing is timed.
        ImportError: matplotlib is missing.
    """
    benchmark = _Benchmark(settings)
    import_optional("matplotlib.figure", "benchmark")  # fail before the long computation, not after it
    torch.set_num_threads(settings.threads)
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    benchmark.check()
    results = ResultsFile(settings.output_dir / "results.csv", settings.append)
    try:
        benchmark.measure(results)
    finally:
        rows = [row for row in results.rows() if row.suite in SUITES]
        benchmark.report(rows)
    return [row for row in rows if row.suite == settings.suite]


class _Benchmark:
    """The settings with everything looked up, and what the checks found."""

    def __init__(self, settings: BenchmarkSettings) -> None:
        self.settings = settings
        self.suite = SUITES[settings.suite]
        self.cases = _chosen_cases(self.suite, settings.models)
        self.lengths = sorted(set(settings.lengths or self.suite.lengths))
        self.size: ModelSize = replace(self.suite.size, **(settings.size or {}))
        if self.size.hidden_size % self.size.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.size.hidden_size} must be a multiple of num_attention_heads "
                f"{self.size.num_attention_heads}."
            )
        is_cuda = torch.device(settings.device).type == "cuda"
        if is_cuda:
            if not torch.cuda.is_available():
                raise ValueError(f"device {settings.device!r}: PyTorch sees no CUDA device here.")
            if torch.device(settings.device).index is not None:
                torch.cuda.set_device(settings.device)
        self.isolated = settings.memory and not is_cuda and can_isolate()
        self.limits = Limits(settings.memory_limit_gib, settings.time_limit_s, settings.threads)
        self.environment = _environment(settings.device)
        self.remarks: list[str] = []
        self.unchecked: dict[tuple[str, str], str] = {}

    def workload(self, length: int, dtype: str) -> Workload:
        batch_size = self.settings.batch_size or self.suite.batch_size(length)
        return Workload(self.size, length, batch_size, DTYPES[dtype], self.settings.device, self.settings.seed)

    def check(self) -> None:
        """Check every case in every precision, and print what was found."""
        wrong = []
        for dtype in self.settings.dtypes:
            workload = self.workload(self.lengths[0], dtype)
            for name, case in self.cases.items():
                problem = None
                if case.is_sft:
                    try:
                        result = check_sft(self.suite, case, workload)
                    except Exception as error:  # such as a missing compiler, which other cases do not need
                        problem = self.unchecked[name, dtype] = describe_failure(error)
                    else:
                        self._remark(str(result))
                        wrong += [] if result.passed else [str(result)]
                else:
                    problem = check_peer(self.suite, case, workload)
                    if problem is None:
                        self._remark(f"{case.label}, {dtype}: outputs are finite and of the right shape")
                if problem is not None:
                    self._remark(f"{case.label}, {dtype}: {problem}")
        if wrong:
            raise CorrectnessError("\n".join(wrong))

    def _remark(self, line: str) -> None:
        self.remarks.append(line)
        print(line, flush=True)

    def measure(self, results: ResultsFile) -> None:
        """Measure, length by length, all cases that the results lack, under a progress bar."""
        from tqdm.auto import tqdm

        settings = self.settings
        done = {row.key for row in results.rows() if row.status == "ok"}
        blocks = [(dtype, mode) for dtype in settings.dtypes for mode in settings.modes]
        # Each case takes one step of the bar for its first pass, one for its warm-up, and one for each round.
        steps_per_group = len(self.cases) * (2 + settings.rounds)
        num_groups = 0
        with tqdm(total=len(blocks) * len(self.lengths) * steps_per_group, unit="step", dynamic_ncols=True) as bar:
            for dtype, mode in blocks:
                given_up = {name: problem for (name, other), problem in self.unchecked.items() if other == dtype}
                for length in self.lengths:
                    group = _Group(self, length, mode, dtype, bar)
                    missing = [name for name in self.cases if group.row(name, "").key not in done]
                    group.measure(missing, given_up, results)
                    num_groups += 1
                    bar.update(num_groups * steps_per_group - bar.n)

    def report(self, rows: Sequence[ResultRow]) -> None:
        """Write table.md, environment.json and the figure, and print the table of this suite."""
        folder = self.settings.output_dir
        (folder / "table.md").write_text(markdown_report(rows, SUITES, self.remarks), encoding="utf-8")
        rows = [row for row in rows if row.suite == self.suite.name]
        record = json.dumps(self.environment | {"checks": self.remarks}, indent=2)
        (folder / "environment.json").write_text(record + "\n", encoding="utf-8")
        if any(row.seconds_median is not None for row in rows):
            plot_results(rows, self.suite, folder / f"{self.suite.name}.png")
        print(markdown_report(rows, SUITES, []))


class _Group:
    """The cases of one length, mode and precision: probed one by one, then timed in turn."""

    def __init__(self, benchmark: _Benchmark, length: int, mode: str, dtype: str, bar: Any) -> None:
        self.benchmark, self.mode, self.dtype, self.bar = benchmark, mode, dtype, bar
        self.workload = benchmark.workload(length, dtype)

    def row(self, name: str, status: str, **numbers: Any) -> ResultRow:
        benchmark, environment = self.benchmark, self.benchmark.environment
        versions = ", ".join(f"{package} {version}" for package, version in environment["versions"].items() if version)
        return ResultRow(
            suite=benchmark.suite.name,
            model=name,
            length=self.workload.length,
            batch_size=self.workload.batch_size,
            mode=self.mode,
            dtype=self.dtype,
            device=self.workload.device,
            threads=benchmark.settings.threads,
            size=", ".join(f"{field} {value}" for field, value in vars(benchmark.size).items()),
            status=status,
            hardware=environment["hardware"],
            versions=versions,
            date=environment["date"],
            command=environment["command"],
            **numbers,
        )

    def measure(self, names: Sequence[str], given_up: dict[str, str], results: ResultsFile) -> None:
        """Measure the named cases; skip the cases in `given_up`, and add the cases that exceed the limits to it."""
        inputs = self.benchmark.suite.inputs(self.workload) if names else {}
        steps: dict[str, Step] = {}
        probes: dict[str, Probe] = {}
        for name in names:
            self._announce(name, "first pass")
            if name in given_up:
                results.add(self.row(name, given_up[name]))
                continue
            try:
                probe = self._probe(name, inputs)
                if probe.status == "ok":
                    steps[name] = Step(self.benchmark.cases[name], self.workload, self.mode, inputs)
            except Exception as error:  # a peer may fail in any way, and the others must go on
                probe = Probe(describe_failure(error))
            probes[name] = probe
            if probe.status != "ok":
                results.add(self.row(name, probe.status, peak_mib=probe.peak_mib))
                if not probe.status.startswith("failed"):
                    given_up[name] = f"skipped: {probe.status} at N = {self.workload.length:,}"
        timings: dict[str, Timing] = {}
        failures: dict[str, str] = {}
        settings = self.benchmark.settings
        try:
            time_in_turn(
                steps,
                settings.rounds,
                settings.min_seconds,
                timings,
                failures,
                lambda name: self._announce(name, "timing"),
            )
        finally:
            for name, step in steps.items():
                if name in failures:
                    results.add(self.row(name, failures[name], peak_mib=probes[name].peak_mib))
                elif name in timings and timings[name].seconds:
                    results.add(self._timed_row(name, step, timings[name], probes[name].peak_mib))

    def _probe(self, name: str, inputs: dict[str, torch.Tensor]) -> Probe:
        benchmark, case = self.benchmark, self.benchmark.cases[name]
        if benchmark.isolated:
            suite = benchmark.suite
            return probe_in_child(case, suite.inputs, suite.warmup_length, self.workload, self.mode, benchmark.limits)
        return probe_here(Step(case, self.workload, self.mode, inputs), benchmark.limits)

    def _timed_row(self, name: str, step: Step, timing: Timing, peak_mib: float | None) -> ResultRow:
        middle = median(timing.seconds)
        return self.row(
            name,
            "ok" if len(timing.seconds) == self.benchmark.settings.rounds else "interrupted",
            seconds_median=middle,
            seconds_min=min(timing.seconds),
            seconds_max=max(timing.seconds),
            rounds=len(timing.seconds),
            repeats=timing.repeats,
            tokens_per_second=self.workload.batch_size * self.workload.length / middle,
            peak_mib=peak_mib,
            parameters=step.num_parameters(),
            backend=backends_used(step.module),
        )

    def _announce(self, name: str, phase: str) -> None:
        self.bar.set_description(f"N = {self.workload.length:,}, {self.mode}, {self.dtype}: {phase} of {name}")
        self.bar.update()


def _chosen_cases(suite: BenchmarkSuite, names: Sequence[str] | None) -> dict[str, BenchmarkCase]:
    if names is None:
        names = suite.default_models
    elif list(names) == ["all"]:
        names = list(suite.cases)
    unknown = [name for name in names if name not in suite.cases]
    if unknown:
        raise ValueError(f"models {', '.join(unknown)}: the suite {suite.name} has {', '.join(suite.cases)}.")
    return {name: suite.cases[name] for name in names}


def _environment(device: str) -> dict[str, Any]:
    environment = describe_environment()
    on_cpu = torch.device(device).type == "cpu"
    environment["hardware"] = processor_name() if on_cpu else torch.cuda.get_device_name(device)
    try:
        environment["versions"]["torch-geometric"] = importlib.metadata.version("torch-geometric")
    except importlib.metadata.PackageNotFoundError:
        environment["versions"]["torch-geometric"] = None
    return environment
