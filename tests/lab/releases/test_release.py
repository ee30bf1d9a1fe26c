"""From runs to a repository: the median run, its card, its comparison, and the page of results."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lab.releases import (
    Goal,
    check_example,
    compare,
    comparison_tables,
    read_goals,
    refresh,
    release,
    render_results_page,
)
from modeling_sft.publishing import check_card, check_folder, prepare
from modeling_sft.publishing.card import load_card
from modeling_sft.training import repeat
from modeling_sft.training.tasks import point_clouds
from tiny_recipes import tiny_settings

GOAL = Goal(
    "sft-tiny",
    "tiny",
    required=0.2,
    target=0.95,
    anchors=("tiny-pointnet", "never-run"),
    published=({"model": "Other", "value": 0.987, "source": "a paper", "remark": "larger"},),
)


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, whose results are then set so that the median is the third."""
    folder = tmp_path_factory.mktemp("repeated")
    splits = point_clouds.load_point_cloud_dataset("digits")
    few = {"train": splits["train"].select(range(60)), "test": splits["test"].select(range(20))}
    recipe = folder / "tiny" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text(yaml.safe_dump(tiny_settings("dataset.validation_fraction=0.2", "training.max_steps=2")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: few))
        summary = repeat(recipe, "seed", ["0", "1", "2"], folder / "runs")
    summary["metrics"]["accuracy"]["values"] = [0.9, 0.1, 0.5]
    summary["metrics"]["mean_class_accuracy"]["values"] = [0.25, 0.125, 0.0625]
    summary["rotated"]["so3"]["accuracy"]["values"] = [0.5, 0.1, 0.9]
    summary["command"] = "scripts/repeat.py /somewhere/secret/recipe.yaml --output_dir /somewhere/else"
    (folder / "runs" / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def runs(repeated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repeated / "runs", tmp_path / "runs"))


@pytest.fixture
def released(runs: Path, tmp_path: Path) -> Path:
    release(GOAL, runs, tmp_path / "cards", tmp_path / "results")
    return tmp_path / "cards" / GOAL.name


def summary_of(path: Path, **changes: Any) -> dict[str, Any]:
    return json.loads(path.read_text()) | changes


def test_the_median_run_is_released(runs: Path, released: Path) -> None:
    assert json.loads((released / "comparison.json").read_text())["released"] == {"seed": "2"}
    weights = load_file(released / "model.safetensors")
    expected = load_file(runs / "seed=2" / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert json.loads((released / "evaluation.json").read_text())["training_seed"] == 2


def test_the_rotation_of_the_goal_decides_the_median(runs: Path, tmp_path: Path) -> None:
    goal = Goal("sft-tiny", "tiny", 0.2, 0.95, rotation="so3")
    assert release(goal, runs, tmp_path / "cards", tmp_path / "results")["released"] == {"seed": "0"}


def test_the_metric_of_the_goal_decides_the_median_and_is_shown(runs: Path, tmp_path: Path) -> None:
    goal = Goal("sft-tiny", "tiny", 0.2, 0.95, metric="mean_class_accuracy")
    comparison = release(goal, runs, tmp_path / "cards", tmp_path / "results")
    assert comparison["released"] == {"seed": "1"}
    assert "| model | mean class accuracy (%) of each run |" in comparison_tables(comparison)
    assert "| 25.00, 12.50, 6.25 |" in comparison_tables(comparison)


def test_the_card_of_a_single_run_says_so(runs: Path, tmp_path: Path) -> None:
    summary = summary_of(runs / "summary.json", values=["0"])
    summary["metrics"]["accuracy"] = {"values": [0.9], "mean": 0.9, "std": None}
    (runs / "summary.json").write_text(json.dumps(summary))
    release(GOAL, runs, tmp_path / "cards", tmp_path / "results")
    prepare(tmp_path / "cards" / GOAL.name, "org/sft-tiny")
    text = (tmp_path / "cards" / GOAL.name / "README.md").read_text()
    assert "holds the run with seed 0. Other" in text and "One run with one seed" in text


def test_release_is_whole_and_names_no_folder_of_the_machine(released: Path, tmp_path: Path) -> None:
    publication = prepare(released, "org/sft-tiny")
    names = {file.name for file in publication.files}
    expected = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml"}
    expected |= {"training_log.json", "evaluation.json", "comparison.json", "example.json", "curves.png"}
    assert expected <= names and "modeling_sft_point_cloud.py" in names and not publication.left_out
    assert not list(released.glob("*.py"))
    for path in [*released.glob("*.json"), released / "README.md", *(tmp_path / "results").iterdir()]:
        assert "/somewhere" not in path.read_text() and str(tmp_path) not in path.read_text()


def test_card_shows_all_runs_anchors_and_others(released: Path, tmp_path: Path) -> None:
    anchor = summary_of(tmp_path / "results" / "tiny.json", recipe="tiny-pointnet", baseline="pointnet")
    anchor["metrics"] = {"accuracy": {"values": [0.4321], "mean": 0.4321, "std": None}}
    (tmp_path / "results" / "tiny-pointnet.json").write_text(json.dumps(anchor))
    refresh(GOAL, released.parent, tmp_path / "results")
    prepare(released, "org/sft-tiny")
    text = (released / "README.md").read_text()
    assert "| SFT (`tiny`) | 90.00, 10.00, 50.00 |" in text
    assert "| PointNet (`tiny-pointnet`) | 43.21 | 43.21 |" in text
    assert "| Other | 98.70 | a paper | larger |" in text
    assert "seed 2, the median" in text and "One run with one seed" not in text


def test_what_a_reader_must_know_is_in_card_and_page(released: Path, tmp_path: Path) -> None:
    anchor = summary_of(tmp_path / "results" / "tiny.json", recipe="tiny-pointnet", baseline="pointnet")
    anchor |= {"hardware": "a slow one", "date": "2026-01-02T03:04:05+00:00"}
    (tmp_path / "results" / "tiny-pointnet.json").write_text(json.dumps(anchor))
    goal = dataclasses.replace(GOAL, note="As good as a guess.")
    refresh(goal, released.parent, tmp_path / "results")
    prepare(released, "org/sft-tiny")
    page = render_results_page({GOAL.name: goal}, tmp_path / "results")
    assert "\n\nAs good as a guess.\n" in page and "\n\nAs good as a guess.\n" in (released / "README.md").read_text()
    assert "\nMeasured on a slow one (`tiny-pointnet`), 2026-01-02." in page
    assert page.count("(`tiny`)") == 2  # its row, and its machine


def test_number_without_source_in_the_comparison_is_found(released: Path) -> None:
    prepare(released, "org/sft-tiny")
    card = released / "README.md"
    card.write_text(card.read_text().replace("90.00, 10.00, 50.00", "99.00, 10.00, 50.00"))
    checked = check_folder(released)
    with pytest.raises(ValueError, match=r"99\.00"):
        check_card(load_card(card), checked.reports, checked.sections)


def test_example_tells_other_weights_and_other_code(released: Path, tmp_path: Path) -> None:
    from modeling_sft import SFTForPointCloudClassification

    model = SFTForPointCloudClassification.from_pretrained(released).eval()
    check_example(released / "example.json", model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    with pytest.raises(ValueError, match="other logits"):
        check_example(released / "example.json", model)
    weights = load_file(released / "model.safetensors")
    save_file({name: 1.1 * value for name, value in weights.items()}, released / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="other logits"):
        refresh(GOAL, released.parent, tmp_path / "results")


def test_refresh_removes_code_and_keeps_measurements(released: Path, tmp_path: Path) -> None:
    kept = ("model.safetensors", "evaluation.json", "training_log.json", "recipe.yaml", "example.json")
    before = {name: (released / name).read_bytes() for name in kept}
    for name in ("modeling_sft_point_cloud.py", "gone_sft.py"):
        (released / name).write_text("# of an earlier release")
    refresh(GOAL, released.parent, tmp_path / "results")
    assert {name: (released / name).read_bytes() for name in kept} == before
    assert not list(released.glob("*.py"))


def test_page_of_results_says_what_was_reached_and_missed(released: Path, tmp_path: Path) -> None:
    goals = {GOAL.name: GOAL, "later": Goal("later", "never-run", 0.5, 0.6)}
    page = render_results_page(goals, tmp_path / "results")
    row = next(line for line in page.splitlines() if line.startswith("| [sft-tiny](#sft-tiny)"))
    assert "20.00: reached" in row and "95.00: **missed**" in row
    assert next(line for line in page.splitlines() if line.startswith("| later")).count("not measured") == 2
    comparison = compare(GOAL, tmp_path / "results")
    assert comparison is not None and comparison_tables(comparison) in page
    assert "Runs differ in `seed`: 0, 1, 2." in page


def test_a_small_error_can_be_the_goal(released: Path, tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "results" / "tiny.json", task="graph-regression")
    spread = {"values": [0.7, 0.5, 0.6], "mean": 0.6, "std": 0.1}
    summary["metrics"] = {"mean_absolute_error": spread}
    (tmp_path / "results" / "tiny.json").write_text(json.dumps(summary))
    page = render_results_page({"m": Goal("m", "tiny", required=0.65, target=0.55)}, tmp_path / "results")
    assert "| 0.6000 ± 0.1000 |  | 0.6500: reached | 0.5500: **missed** |" in page
    aimless = {"m": Goal("m", "tiny"), "later": Goal("later", "never-run")}
    page = render_results_page(aimless, tmp_path / "results")
    assert "| 0.6000 ± 0.1000 |  |  |  |" in page and "| later |  |  |  |  |  |  |" in page
    floor = summary | {"recipe": "tiny-floor", "baseline": "fingerprints", "num_parameters": [None]}
    for mean, verdict in ((0.5, "**not passed**"), (0.7, "passed")):
        floor["metrics"] = {"mean_absolute_error": spread | {"mean": mean}}
        (tmp_path / "results" / "tiny-floor.json").write_text(json.dumps(floor))
        page = render_results_page({"m": Goal("m", "tiny", floor="tiny-floor")}, tmp_path / "results")
        assert f"| 0.6000 ± 0.1000 | {mean:.4f}: {verdict} |" in page


def test_a_card_says_first_that_its_model_is_below_the_floor(released: Path, tmp_path: Path) -> None:
    goal = dataclasses.replace(GOAL, floor="tiny-floor")
    own = summary_of(tmp_path / "results" / "tiny.json")["metrics"]["accuracy"]["mean"]
    floor = summary_of(tmp_path / "results" / "tiny.json", recipe="tiny-floor", baseline="shape_histograms")
    floor |= {"num_parameters": [None] * 3, "training_cpu_seconds": [90.0, 60.0, 30.0]}
    first = {}
    for change in (0.01, -0.01):
        floor["metrics"]["accuracy"] = {"values": [own + change], "mean": own + change, "std": None}
        (tmp_path / "results" / "tiny-floor.json").write_text(json.dumps(floor))
        refresh(goal, released.parent, tmp_path / "results")
        prepare(released, "org/sft-tiny")
        text = (released / "README.md").read_text()
        first[change] = text.split("# sft-tiny")[1].split("##")[0]
        row = f"| floor: shape histograms (`tiny-floor`) | {100 * (own + change):.2f} |"
        assert row in text and "| - | 1.5, 1.0, 0.5 |" in text
    assert "**It is below its floor**: shape histograms, a classical method" in first[0.01]
    assert f"fitted in 1.5 CPU minutes, comes to {100 * (own + 0.01):.2f} on the same" in first[0.01]
    assert "floor" not in first[-0.01]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m: {required: 1}", "incomplete"),
        ("m: {recipe: r, required: 1, target: 1, anchor: [a]}", "did you mean `anchors`"),
        ("m: {recipe: r, required: 1, target: 1, published: [{modell: x}]}", "did you mean `model`"),
    ],
)
def test_mistakes_in_goals_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "goals.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_goals(tmp_path)


def test_runs_and_summaries_that_do_not_fit_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no goals\.yaml"):
        read_goals(tmp_path)
    with pytest.raises(ValueError, match=r"summary\.json"):
        release(GOAL, tmp_path / "nothing", tmp_path / "cards", tmp_path / "results")
    with pytest.raises(ValueError, match="are of recipe tiny"):
        release(Goal("m", "other", 0, 1), runs, tmp_path / "cards", tmp_path / "results")
    with pytest.raises(ValueError, match="no release"):
        refresh(GOAL, tmp_path / "cards", tmp_path / "results")
    (tmp_path / "tiny.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        compare(GOAL, tmp_path)
    summary = summary_of(runs / "summary.json")
    (tmp_path / "tiny.json").write_text(json.dumps({**summary, "rotated": {}}))
    with pytest.raises(ValueError, match="not evaluated under rotation so3"):
        compare(Goal("m", "tiny", 0, 1, rotation="so3"), tmp_path)
    with pytest.raises(ValueError, match="`metric` of m is 'roc_auc', and its runs have accuracy"):
        compare(Goal("m", "tiny", 0, 1, metric="roc_auc"), tmp_path)
    (tmp_path / "tiny-pointnet.json").write_text(json.dumps({**summary, "dataset": "another"}))
    with pytest.raises(ValueError, match="another task or data set"):
        compare(GOAL, tmp_path)
