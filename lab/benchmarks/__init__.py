"""Benchmarks of SFT and its peers, which are checked for correctness and then timed in turn within one process."""

from .run import DTYPES, BenchmarkSettings, CorrectnessError, run_benchmark
from .suites import SUITES

__all__ = ["DTYPES", "SUITES", "BenchmarkSettings", "CorrectnessError", "run_benchmark"]
