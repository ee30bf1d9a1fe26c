from dataclasses import replace

import pytest

from benchmark_cases import case, suite
from lab.benchmarks.figures import fitted_slope, plot_results
from lab.benchmarks.report import markdown_report
from lab.benchmarks.results import ResultRow

SUITE = suite(slow=case(), fast=case("allocate", mib=1), third=case("sleep"))


def row(model, length, seconds, peak_mib=None, mode="training", **changes):
    made = ResultRow(
        suite="test",
        model=model,
        length=length,
        batch_size=2,
        mode=mode,
        dtype="float32",
        device="cpu",
        threads=1,
        size="hidden_size 32",
        status="ok",
        seconds_median=seconds,
        seconds_min=seconds,
        seconds_max=1.25 * seconds,
        rounds=5,
        repeats=1,
        tokens_per_second=2 * length / seconds,
        peak_mib=peak_mib,
        parameters=1000 + length,
        hardware="some processor",
    )
    return replace(made, **changes)


def failed(model, length, status):
    nothing = {"seconds_median": None, "seconds_min": None, "seconds_max": None, "tokens_per_second": None}
    return row(model, length, 1.0, status=status, parameters=None, **nothing)


ROWS = [
    row("fast", 3, 0.5, 4.0),
    row("slow", 3, 2.0, 8.0),
    row("slow", 5, 4.0, 30.0),
    row("fast", 5, 1.0, 7.5),
    failed("third", 3, "out of memory"),
    failed("third", 5, "skipped: out of memory at N = 3"),
]


def test_tables_give_speed_memory_and_ratios_to_the_reference():
    report = markdown_report(ROWS, {"test": SUITE}, ["a remark"])
    lines = report.splitlines()
    assert "- a remark" in lines
    assert "## test: training, float32" in lines
    assert "| plain | 1,003 |  | 0.00 (1.00) | 0.00 (1.00) |" in lines
    assert "| allocate | 1,003 |  | 0.01 (0.25) | 0.01 (0.25) |" in lines
    assert "| allocate | 1,003 |  | 4.0 (0.50) | 7.5 (0.25) |" in lines
    assert lines.count("| sleep |  |  | out of memory | skipped: out of memory at N = 3 |") == 2
    # In the order of the suite, whatever that of the rows.
    assert report.index("| plain") < report.index("| allocate") < report.index("| sleep")
    assert "(max - min) / median: 25 %" in report
    assert "some processor" in report


def test_goals_are_held_against_the_measurements_from_their_length_on():
    report = markdown_report(ROWS, {"test": SUITE}, [])
    assert "- N = 5, time of allocate / plain: 0.250, goal at most 0.5: reached" in report
    assert "- N = 5, peak memory of allocate / plain: 0.250, goal at most 0.2: MISSED" in report
    assert "- N = 3" not in report
    inference = [replace(made, mode="inference") for made in ROWS]
    assert "goal" not in markdown_report(inference, {"test": SUITE}, [])


def test_rows_that_cannot_be_compared_are_apart():
    rows = [*ROWS, row("fast", 3, 0.5, mode="inference"), row("fast", 3, 0.5, threads=4)]
    report = markdown_report(rows, {"test": SUITE}, [])
    assert report.count("## test") == 3
    # No memory was measured for the two.
    assert report.count("Peak MiB") == 1


def test_interrupted_and_forgotten_models_are_shown():
    rows = [row("fast", 3, 1.0, status="interrupted"), row("gone", 3, 1.0)]
    report = markdown_report(rows, {"test": SUITE}, [])
    assert "| allocate | 1,003 |  | 0.01 (1.00), interrupted |" in report
    assert "| gone | 1,003 |  | 0.01 (1.00) |" in report


def test_slopes_are_exponents():
    assert fitted_slope([64, 128, 512], [3 * n**1.5 for n in (64, 128, 512)]) == pytest.approx(1.5)
    assert fitted_slope([64], [1.0]) is None


def test_figure_has_a_row_for_each_group(tmp_path):
    heights = []
    for name, rows in (("one.png", ROWS), ("two.png", [*ROWS, row("fast", 3, 0.5, mode="inference")])):
        plot_results(rows, SUITE, tmp_path / name)
        header = (tmp_path / name).read_bytes()[:24]
        heights.append(int.from_bytes(header[20:24], "big"))
    assert heights[1] == 2 * heights[0]
