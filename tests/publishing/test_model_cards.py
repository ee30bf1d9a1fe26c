"""The released models of this repository: they load, give their stored logits, and their pages are up to date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab.releases import check_example, compare, read_goals, render_results_page
from modeling_sft.publishing import CARD_SECTIONS, prepare
from modeling_sft.training import Recipe, get_task
from modeling_sft.training.recipe_files import recipe_paths
from paths import ROOT

RESULTS = ROOT / "docs" / "results"
FOLDERS = sorted(path.parent for path in ROOT.glob("model_cards/*/config.json"))

pytestmark = pytest.mark.skipif(not RESULTS.is_dir(), reason="the sdist has neither models nor results")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_released_model_loads_and_gives_its_logits(folder: Path) -> None:
    recipe = Recipe.from_yaml(folder)
    model = get_task(recipe.task).model_class_of(recipe).from_pretrained(folder)
    assert not model.training
    check_example(folder / "example.json", model)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_release_is_fit_to_be_published_and_up_to_date(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    publication = prepare(copy, f"org/{folder.name}")
    assert not publication.left_out
    assert (copy / "model.safetensors").stat().st_size <= 16e6
    (copy / "README.md").unlink()
    prepare(copy, f"org/{folder.name}")
    remedy = "run scripts/release.py"
    assert (copy / "README.md").read_text() == (folder / "README.md").read_text(), remedy
    assert not list(folder.glob("*.py")), remedy
    comparison = json.loads((folder / "comparison.json").read_text())
    released = comparison.pop("released")
    assert comparison == compare(read_goals(RESULTS)[folder.name], RESULTS), remedy
    values = comparison["runs"][0]["values"]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert released == {"seed": str(evaluation["training_seed"])}
    result = evaluation["results"][comparison["rotation"]][comparison["metric"]]
    # Rounding, and rules for ties, may change the answer to a single example since the runs.
    median, one = sorted(values)[(len(values) - 1) // 2], 1 / evaluation["num_examples"]
    assert result == pytest.approx(median, abs=1.01 * one), "not the median run"


def test_without_the_laboratory_a_card_has_no_sections_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("comparison.json", "analysis.json"):
        monkeypatch.delitem(CARD_SECTIONS, name)
    folder = Path(shutil.copytree(FOLDERS[0], tmp_path / "card"))
    (folder / "README.md").unlink()
    publication = prepare(folder, "org/card")
    assert {"comparison.json", "analysis.json"} <= {file.name for file in publication.files}
    text = (folder / "README.md").read_text()
    assert "of all runs" not in text and "against K" not in text and "\n\n## Limits" in text


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_release_was_trained_by_the_committed_recipe(folder: Path) -> None:
    goal = read_goals(RESULTS)[folder.name]
    committed, trained = Recipe.from_yaml(recipe_paths(ROOT / "configuration")[goal.recipe]), Recipe.from_yaml(folder)
    for name in ("task", "dataset", "model", "processor", "augmentation", "importance_scorer", "pretrained"):
        assert getattr(trained, name) == getattr(committed, name), name
    # What a run logs, evaluates and saves on its way, and the backend, do not decide its weights.
    harmless = ("disable_tqdm", "logging_", "eval_strategy", "save_", "load_best_model_at_end")
    settings = [
        {name: value for name, value in recipe.training.items() if not name.startswith(harmless)}
        for recipe in (committed, trained)
    ]
    assert settings[0] == settings[1]


def test_page_of_results_is_up_to_date() -> None:
    page = render_results_page(read_goals(RESULTS), RESULTS)
    assert (ROOT / "docs" / "results.md").read_text() == page, "run scripts/results.py"
