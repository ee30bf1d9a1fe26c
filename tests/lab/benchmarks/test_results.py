from dataclasses import replace

import pytest

from lab.benchmarks.results import ResultRow, ResultsFile, latest

DONE = ResultRow(
    suite="tokens",
    model="sft",
    length=513,
    batch_size=1,
    mode="inference",
    dtype="float32",
    device="cpu",
    threads=1,
    size="hidden_size 32, num_hidden_layers 2",
    status="ok",
    seconds_median=0.25,
    seconds_min=0.125,
    seconds_max=0.5,
    rounds=5,
    repeats=3,
    tokens_per_second=2052.0,
    peak_mib=12.5,
    parameters=1234,
    backend="sft_fused",
    hardware='a "processor", quoted',
    versions="python 3, torch 2",
    date="2026-11-22",
    command="benchmark.py --suite tokens",
)
FAILED = ResultRow("tokens", "bert", 513, 1, "inference", "float32", "cpu", 1, "", "out of memory")


def test_rows_survive_the_file(tmp_path):
    file = ResultsFile(tmp_path / "results.csv", append=False)
    file.add(DONE)
    file.add(FAILED)
    assert file.rows() == [DONE, FAILED]


def test_a_file_is_extended_only_on_request(tmp_path):
    path = tmp_path / "results.csv"
    ResultsFile(path, append=True).add(DONE)
    ResultsFile(path, append=True).add(FAILED)
    assert ResultsFile(path, append=True).rows() == [DONE, FAILED]
    assert ResultsFile(path, append=False).rows() == []


def test_a_file_with_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("model,seconds\nbert,1\n")
    with pytest.raises(ValueError, match=r"results\.csv"):
        ResultsFile(path, append=True)
    assert path.read_text() == "model,seconds\nbert,1\n"


def test_the_last_row_of_a_key_counts():
    again = replace(DONE, seconds_median=0.5, date="later")
    assert latest([DONE, FAILED, again]) == [again, FAILED]
    others = [replace(DONE, **change) for change in ({"threads": 2}, {"mode": "training"}, {"size": ""})]
    assert len(latest([DONE, *others])) == 4
