import time

import pytest

from benchmark_cases import case, inputs, workload
from lab.benchmarks.isolation import Limits, can_isolate, probe_here, probe_in_child
from lab.benchmarks.measure import Step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_isolate(), reason="needs /proc and RLIMIT_DATA, which Linux has"),
]
AMPLE = Limits(memory_gib=1.0, seconds=60.0)


def probe(tried, limits=AMPLE):
    return probe_in_child(tried, inputs, 3, workload(5), "training", limits)


def test_peak_memory_is_that_of_one_pass():
    small, large = probe(case("allocate", mib=0)), probe(case("allocate", mib=48))
    assert small.status == large.status == "ok"
    assert 0 <= small.peak_mib < 2
    assert 47 < large.peak_mib < 50


def test_a_case_beyond_the_memory_limit_runs_out_of_it():
    # The warm-up is outside of the limit, as weights and code are.
    for gib, status in ((0.03, "out of memory"), (0.1, "ok")):
        assert probe(case("allocate", mib=48), Limits(gib, 60.0)).status == status


def test_a_case_beyond_the_time_limit_is_stopped():
    start = time.perf_counter()
    assert probe(case("sleep", seconds=60, above=4), Limits(1.0, 0.5)).status == "> 0.5 s"
    assert time.perf_counter() - start < 50


@pytest.mark.parametrize(
    ("behaviour", "status"), [("raise", "failed: RuntimeError: no luck"), ("exit", "failed: exit code 3")]
)
def test_a_case_that_fails_says_how(behaviour, status):
    assert probe(case(behaviour)).status == status


def test_without_a_child_the_time_is_checked_afterwards():
    def status(tried, limits):
        return probe_here(Step(tried, workload(5), "inference", inputs(workload(5))), limits).status

    assert status(case(), AMPLE) == "ok"
    assert status(case("sleep", seconds=0.05, above=4), Limits(1.0, 0.01)) == "> 0.01 s"
    assert status(case("nan"), AMPLE).startswith("failed: ValueError")
