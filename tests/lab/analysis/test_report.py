"""Analyses of tiny trained models of each kind of data."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lab.analysis import SECTIONS, analyze, format_analysis
from lab.analysis.report import Analysis
from modeling_sft.training import Evaluator, evaluate

CORRUPTIONS = {
    "digits": {"rotation", "point_dropout", "jitter"},
    "texts": {"length", "replaced_characters"},
    "images": {"noise", "missing_steps"},
    "graphs": {"removed_edges"},
    "labelled_graphs": {"removed_edges"},
    "weights_of_molecules": None,
}
SLOW = ("images", "labelled_graphs")


def quiet(line):
    pass


def run(trained, tmp_path, **options):
    options = {"max_examples": 24, "output_dir": tmp_path, "progress": quiet} | options
    return analyze(trained.folder, trained.data, **options)


def numbers_of(value):
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers_of(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers_of(each)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CORRUPTIONS]
)
def test_a_whole_analysis_agrees_with_evaluation(request, tmp_path, name):
    trained = request.getfixturevalue(name)
    report = run(trained, tmp_path, max_examples=None)
    assert json.loads((tmp_path / "analysis.json").read_text()) == report
    assert np.isfinite(numbers_of(report)).all()
    assert {"model", "task", "dataset", "split", "num_examples", "seed", "date", "versions", "hardware"} <= set(report)

    (tmp_path / "evaluation").mkdir()
    expected = evaluate(trained.folder, trained.data, rotations=["none"], output=tmp_path / "evaluation" / "e.json")
    metrics = expected["results"]["none"]
    assert report["num_examples"] == expected["num_examples"]
    assert report["num_parameters"] == expected["num_parameters"]
    [as_trained] = [entry for entry in report["sampled_tokens"] if entry["is_trained"]]
    assert as_trained["num_sampled_tokens"] == 6
    assert {metric: as_trained[metric] for metric in metrics} == metrics
    assert report["throughput"]["batches"][0]["batch_size"] == 1
    assert set(report.get("robustness", ())) == (CORRUPTIONS[name] or set())
    for entries in report.get("robustness", {}).values():
        assert entries[0]["severity"] == 0
        assert {metric: entries[0][metric] for metric in metrics} == metrics
        severities = [entry["severity"] for entry in entries]
        assert severities == sorted(set(severities))
    has_classes = CORRUPTIONS[name] is not None
    assert [section for section in SECTIONS if section in report] == (
        list(SECTIONS) if has_classes else ["sampled_tokens", "throughput"]
    )
    assert Image.open(tmp_path / "analysis.png").size[0] > 300
    assert (tmp_path / "failures.png").is_file() == has_classes
    text = format_analysis(report)
    assert "sampled tokens" in text and f"{report['num_examples']} examples" in text


def test_k_goes_up_to_the_longest_input_and_comes_back(digits):
    evaluator = Evaluator(digits.folder)
    analysis = Analysis(evaluator, None, 20, 0, quiet)
    seen = []
    predict = evaluator.predict

    def spy(data):
        seen.append(evaluator.model.config.num_sampled_tokens)
        return predict(data)

    evaluator.predict = spy
    entries = analysis.sampled_tokens()
    longest = max(len(row["points"]) for row in analysis.rows)
    assert [entry["num_sampled_tokens"] for entry in entries] == sorted({6, 16, 32, longest} - {32 * (longest <= 32)})
    assert sorted(seen) == [entry["num_sampled_tokens"] for entry in entries]
    assert [entry["is_all"] for entry in entries] == [False] * (len(entries) - 1) + [True]
    assert evaluator.model.config.num_sampled_tokens == 6

    def fail(data):
        raise KeyboardInterrupt

    evaluator.predict = fail
    with pytest.raises(KeyboardInterrupt):
        analysis.sampled_tokens()
    assert evaluator.model.config.num_sampled_tokens == 6


def test_only_the_sections_asked_for_are_made(digits, tmp_path):
    (tmp_path / "failures.png").write_text("of an earlier analysis")
    report = run(digits, tmp_path, only=["calibration", "throughput"], batch_size=8)
    assert [section for section in SECTIONS if section in report] == ["calibration", "throughput"]
    assert [batch["batch_size"] for batch in report["throughput"]["batches"]] == [1, 8]
    assert not (tmp_path / "failures.png").exists() and (tmp_path / "analysis.png").is_file()


@pytest.mark.slow
def test_drawn_examples_depend_on_the_seed_and_keep_their_place_in_the_split(digits, tmp_path):
    reports = [run(digits, tmp_path, only=["failures"], seed=seed, max_examples=30) for seed in (0, 0, 1)]
    assert reports[0]["failures"] == reports[1]["failures"] != reports[2]["failures"]
    whole = run(digits, tmp_path, only=["failures"], max_examples=None)
    assert np.sum(whole["failures"]["confusion_matrix"]) == 41
    evaluator = Evaluator(digits.folder)
    rows = evaluator.load_rows(None)
    logits = evaluator.predict(evaluator.prepare(rows)).predictions
    names = [str(digit) for digit in range(10)]
    for example in reports[2]["failures"]["examples"]:
        assert example["true"] == names[rows[example["index"]]["label"]]
        assert example["predicted"] == names[logits[example["index"]].argmax()] != example["true"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"only": ["accuracy"]}, "`only` must be among sampled_tokens, robustness.*got accuracy"),
        ("digits", {"only": []}, "got none"),
        ("weights_of_molecules", {"only": ["calibration"]}, "among sampled_tokens, throughput for the task graph-reg"),
        ("digits", {"max_examples": 0}, "`max_examples` must be at least 1"),
        ("digits", {"seed": -1}, "`seed` must be at least 0"),
        ("digits", {"batch_size": 0}, "batch_size"),
        ("digits", {"split": "train"}, "split"),
    ],
)
def test_wrong_arguments_are_refused(request, tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        run(request.getfixturevalue(name), tmp_path, **options)
    assert not (tmp_path / "analysis.json").exists()


def test_data_whose_labels_every_corruption_changes_have_no_robustness(digits, texts, tmp_path):
    folder = shutil.copytree(texts.folder, tmp_path / "run")
    evaluator = Evaluator(folder)
    evaluator.recipe.dataset["name"] = "lra_listops"
    evaluator.load_rows = lambda data_dir: Evaluator(texts.folder).load_rows(texts.data)
    assert "robustness" not in Analysis(evaluator, None, None, 0, quiet).available
