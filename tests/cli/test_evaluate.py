"""`sft evaluate`: the table of a trained model, and its file."""

import json


def test_evaluation_is_printed_and_written(run, trained, tmp_path):
    output = tmp_path / "k4.json"
    options = ("--rotations", "none", "z", "--num_sampled_tokens", 4, "--split", "validation")
    text = run("evaluate", trained, *options, "--output", output)
    report = json.loads(output.read_text())
    assert (report["num_sampled_tokens"], report["split"]) == (4, "validation")
    assert list(report["results"]) == ["none", "z"]
    assert f"{100 * report['results']['none']['accuracy']:.2f}" in text and f"written to {output}" in text
    assert json.loads((trained / "evaluation.json").read_text())["num_sampled_tokens"] == 6


def test_nothing_is_written_without_being_asked(run, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    options = ("--rotations", "none", "--num_sampled_tokens", 4)
    text = run("evaluate", trained, *options)
    assert "K = 4" in text and "written" not in text
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    assert f"written to {trained / 'evaluation.json'}" in run("evaluate", trained, *options, "--save")
    assert json.loads((trained / "evaluation.json").read_text())["num_sampled_tokens"] == 4


def test_mistakes_are_said(run, trained):
    assert "no saved model" in run("evaluate", "no/such/folder")
    assert "upside_down" in run("evaluate", trained, "--rotations", "upside_down")
