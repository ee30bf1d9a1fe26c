"""The analysis in a model card, and that its numbers are checked."""

import json
import re
import shutil

import pytest

from lab.analysis import analyze
from modeling_sft.publishing import check_folder, prepare, render_card
from modeling_sft.training import evaluate


@pytest.fixture(scope="package")
def analyzed(digits, tmp_path_factory):
    folder = shutil.copytree(digits.folder, tmp_path_factory.mktemp("card") / "run")
    evaluate(folder, rotations=["none"], output=folder / "evaluation.json")
    analyze(folder, max_examples=20, progress=lambda line: None)
    return folder


@pytest.fixture
def folder(analyzed, tmp_path):
    return shutil.copytree(analyzed, tmp_path / "run")


def test_the_card_shows_each_section_and_the_files_are_published(folder):
    names = {file.name for file in prepare(folder, "lab/digits").files}
    assert {"analysis.json", "analysis.png", "failures.png"} <= names
    card = (folder / "README.md").read_text()
    analysis = json.loads((folder / "analysis.json").read_text())
    headings = re.findall(r"^## (.*)", card, re.MULTILINE)
    sections = ["Accuracy against K", "Robustness", "Calibration", "Throughput", "Failure cases"]
    start = headings.index("Results") + 1
    assert headings[start : start + 6] == [*sections, "Limits"]
    for entry in analysis["sampled_tokens"]:
        assert f"{100 * entry['accuracy']:.2f}" in card
    assert "| point dropout | 25 % |" in card
    assert f"{analysis['calibration']['expected_calibration_error']:.4f}" in card
    assert analysis["hardware"] in card and "![Failure cases](failures.png)" in card
    assert f"| {analysis['failures']['examples'][0]['index']} | `" in card


@pytest.mark.parametrize("section", ["Accuracy against K", "Robustness", "Calibration", "Throughput", "Failure cases"])
def test_a_tampered_number_is_refused(folder, section):
    prepare(folder, "lab/digits")
    path = folder / "README.md"
    before, heading, after = path.read_text().partition(f"## {section}\n")
    after = re.sub(r"\| [\d,.]+ \|\n", "| 4242.42 |\n", after, count=1)
    path.write_text(before + heading + after)
    with pytest.raises(ValueError, match=r"4242\.42, which has no source in analysis\.json"):
        prepare(folder, "lab/digits")


def test_a_number_of_another_section_is_no_source(folder):
    prepare(folder, "lab/digits")
    analysis = json.loads((folder / "analysis.json").read_text())
    path = folder / "README.md"
    shown = f"{analysis['calibration']['negative_log_likelihood']:.4f}"
    path.write_text(path.read_text().replace("## Throughput\n", f"## Throughput\n\n| {shown} |\n|---|\n"))
    with pytest.raises(ValueError, match=f'"Throughput" says {shown}'):
        prepare(folder, "lab/digits")


def test_numbers_without_an_analysis_are_refused(folder):
    prepare(folder, "lab/digits")
    (folder / "analysis.json").unlink()
    with pytest.raises(ValueError, match="no source in analysis.json"):
        prepare(folder, "lab/digits")
    (folder / "README.md").unlink()
    assert "Robustness" not in str(render_card(check_folder(folder), "lab/digits"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "analysis.json is missing or damaged"),
        ("{}", "analysis.json has no task.*scripts/analyze.py"),
        (None, "analysis.json belongs to another model: its num_parameters is 3.*scripts/analyze.py"),
    ],
)
def test_an_analysis_that_does_not_fit_is_refused(folder, content, message):
    path = folder / "analysis.json"
    path.write_text(content or json.dumps(json.loads(path.read_text()) | {"num_parameters": 3}))
    with pytest.raises(ValueError, match=message):
        prepare(folder, "lab/digits")


def test_a_partial_analysis_makes_fewer_sections(folder):
    analyze(folder, max_examples=10, only=["throughput"], progress=lambda line: None)
    prepare(folder, "lab/digits")
    card = (folder / "README.md").read_text()
    assert "## Throughput" in card and "## Robustness" not in card and "analysis.png" not in card
