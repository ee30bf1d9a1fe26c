import csv
import json

import pytest
import torch

from benchmark_cases import TINY, case, suite
from lab.benchmarks import SUITES, BenchmarkSettings, CorrectnessError, run_benchmark
from lab.benchmarks.isolation import can_isolate
from modeling_sft.attention.backends import ATTENTION_BACKENDS

SIZE = vars(TINY)


@pytest.fixture(autouse=True)
def own_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tmp_path, suite="test", **changes):
    settings = {"rounds": 2, "min_seconds": 0.0, "memory": False} | changes
    return run_benchmark(BenchmarkSettings(suite, tmp_path, **settings))


def statuses(rows):
    return {(row.model, row.length, row.mode): row.status for row in rows}


def test_attention_by_every_backend(tmp_path, capsys):
    models = ["eager", "sft_fused", "dot_sdpa"]
    rows = run(tmp_path, "attention", lengths=[33, 17], models=models, size=SIZE, dtypes=["float32", "bfloat16"])
    assert [(row.dtype, row.mode, row.length, row.model) for row in rows] == [
        (dtype, mode, length, model)
        for dtype in ("float32", "bfloat16")
        for mode in ("inference", "training")
        for length in (17, 33)
        for model in models
    ]
    for row in rows:
        assert row.status == "ok" and row.rounds == 2
        assert 0 < row.seconds_min <= row.seconds_median <= row.seconds_max
        assert row.tokens_per_second == pytest.approx(row.length / row.seconds_median, rel=1e-4)
        assert row.backend == row.model.removeprefix("dot_")
        assert row.hardware and "torch " in row.versions and row.date and row.command
    table = (tmp_path / "table.md").read_text()
    assert table.count("relative RMS error of outputs") == 6
    assert table.partition("## ")[2] in capsys.readouterr().out
    assert (tmp_path / "attention.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "environment.json").read_text())["versions"]["torch"] == torch.__version__


def test_what_fails_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch):
    cases = {"plain": case(), "raise": case("raise"), "slow": case("sleep", seconds=0.2, above=3)}
    monkeypatch.setitem(SUITES, "test", suite(**cases))
    rows = run(tmp_path, lengths=[3, 4, 5], modes=["inference"], time_limit_s=0.1)
    for length in (3, 4, 5):
        assert statuses(rows)["plain", length, "inference"] == "ok"
        assert statuses(rows)["raise", length, "inference"] == "failed: RuntimeError: no luck"
    assert [statuses(rows)["slow", length, "inference"] for length in (3, 4, 5)] == [
        "ok",
        "> 0.1 s",
        "skipped: > 0.1 s at N = 4",
    ]


def test_append_measures_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(SUITES, "test", suite(a=case(), b=case()))
    first = run(tmp_path, models=["a"], modes=["training"])
    both = run(tmp_path, modes=["training"], append=True)
    assert [row for row in both if row.model == "a"] == first
    assert [row.model for row in both] == ["a", "a", "b", "b"]
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert [row.model for row in run(tmp_path, models=["b"], lengths=[5], modes=["training"])] == ["b"]


def test_one_folder_can_hold_several_suites(tmp_path, monkeypatch):
    monkeypatch.setitem(SUITES, "test", suite(a=case()))
    run(tmp_path, lengths=[3], modes=["inference"])
    rows = run(tmp_path, "attention", lengths=[17], size=SIZE, models=["eager"], modes=["inference"], append=True)
    assert [row.suite for row in rows] == ["attention"]
    table = (tmp_path / "table.md").read_text()
    assert "## test: inference" in table and "## attention: inference" in table
    assert {path.name for path in tmp_path.glob("*.png")} == {"test.png", "attention.png"}


def test_an_interruption_keeps_the_results_and_append_goes_on(tmp_path, monkeypatch):
    # It is warmed up by two passes, so the second round is cut.
    interrupted = suite(plain=case(), cut=case("interrupt", after=3))
    monkeypatch.setitem(SUITES, "test", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, modes=["inference"])
    assert "| interrupt |" in (tmp_path / "table.md").read_text()
    monkeypatch.setitem(SUITES, "test", suite(plain=case(), cut=case()))
    rows = run(tmp_path, modes=["inference"], append=True)
    assert len(rows) == 4
    assert statuses(rows) == {(model, length, "inference"): "ok" for model in ("plain", "cut") for length in (3, 5)}
    with (tmp_path / "results.csv").open() as file:
        written = [(row["model"], row["length"], row["status"]) for row in csv.DictReader(file)]
    assert written[:2] == [("plain", "3", "ok"), ("cut", "3", "interrupted")]
    assert written[2:] == [("cut", "3", "ok"), ("plain", "5", "ok"), ("cut", "5", "ok")]


def test_a_wrong_backend_stops_everything(tmp_path, monkeypatch):
    right = ATTENTION_BACKENDS["sft_fused"]
    wrong = right._replace(function=lambda inputs: 1.01 * right.function(inputs))
    monkeypatch.setitem(ATTENTION_BACKENDS, "sft_fused", wrong)
    with pytest.raises(CorrectnessError, match="sft_fused: relative RMS error"):
        run(tmp_path, "attention", lengths=[17], size=SIZE, models=["eager", "sft_fused"])
    assert not (tmp_path / "results.csv").exists()


def test_an_sft_case_that_cannot_be_checked_is_not_timed(tmp_path, monkeypatch):
    right = ATTENTION_BACKENDS["sft_fused"]

    def inference_only(inputs):
        if torch.is_grad_enabled():
            raise NotImplementedError("no gradient")
        return right.function(inputs)

    monkeypatch.setitem(ATTENTION_BACKENDS, "sft_fused", right._replace(function=inference_only))
    rows = run(tmp_path, "attention", lengths=[17], size=SIZE, models=["eager", "sft_fused"], modes=["inference"])
    assert statuses(rows)["eager", 17, "inference"] == "ok"
    assert statuses(rows)["sft_fused", 17, "inference"] == "failed: NotImplementedError: no gradient"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ["brt"]}, "brt"),
        ({"size": {"hidden_size": 30, "num_attention_heads": 4}}, "num_attention_heads"),
        ({"device": "cuda:99"}, "cuda"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, changes, words):
    if changes.get("device") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=words):
        run(tmp_path, "tokens", **changes)


@pytest.mark.slow
@pytest.mark.skipif(not can_isolate(), reason="needs /proc and RLIMIT_DATA, which Linux has")
def test_memory_is_measured_in_child_processes(tmp_path, monkeypatch):
    cases = {"plain": case(), "hungry": case("allocate", mib=40)}
    monkeypatch.setitem(SUITES, "test", suite(**cases))
    peaks = {row.model: row.peak_mib for row in run(tmp_path, lengths=[5], memory=True)}
    assert peaks["plain"] < 2 and 39 < peaks["hungry"] < 42
    limited = run(tmp_path, lengths=[5], modes=["inference"], memory=True, memory_limit_gib=0.02)
    assert statuses(limited)["hungry", 5, "inference"] == "out of memory"
    assert statuses(limited)["plain", 5, "inference"] == "ok"
