"""Runs of one recipe over seeds: summary, resuming, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from modeling_sft.training import format_summary, repeat, repetition
from modeling_sft.training.tasks import point_clouds
from tiny_recipes import tiny_settings

VALUES = ["0", "1", "2"]


@pytest.fixture(scope="module")
def few_digits() -> dict[str, Any]:
    splits = point_clouds.load_point_cloud_dataset("digits")
    return {"train": splits["train"].select(range(60)), "test": splits["test"].select(range(41))}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: dict[str, Any]) -> Path:
    monkeypatch.setattr(point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: few_digits))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_settings("dataset.validation_fraction=0.2", "training.max_steps=2")))
    return path


def test_every_value_is_trained_evaluated_and_summarised(recipe: Path, tmp_path: Path) -> None:
    summary = repeat(recipe, "seed", VALUES, tmp_path / "runs")
    assert json.loads((tmp_path / "runs" / "summary.json").read_text()) == summary
    reports = [json.loads((tmp_path / "runs" / f"seed={v}" / "evaluation.json").read_text()) for v in VALUES]
    assert [report["training_seed"] for report in reports] == [0, 1, 2]
    found = summary["metrics"]["accuracy"]
    assert found["values"] == [report["results"]["none"]["accuracy"] for report in reports]
    assert found["mean"] == pytest.approx(np.mean(found["values"]))
    assert found["std"] == pytest.approx(np.std(found["values"], ddof=1))
    assert f"accuracy %: {100 * found['mean']:.2f} +- {100 * found['std']:.2f} (" in format_summary(summary)
    assert len(set(summary["num_parameters"])) == 1 and min(summary["training_cpu_seconds"]) > 0
    assert len(summary["validation"]) == 3


def test_one_value_has_no_deviation(recipe: Path, tmp_path: Path) -> None:
    summary = repeat(recipe, "seed", ["3"], tmp_path / "runs")
    assert summary["metrics"]["accuracy"]["std"] is None and "+-" not in format_summary(summary)


@pytest.mark.slow
def test_finished_runs_are_kept_on_resuming(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[str] = []
    original = repetition.evaluate

    def evaluate(folder: Path, *args: Any, **kwargs: Any) -> Any:
        if len(evaluated) == 1:
            evaluated.append("cut")
            raise KeyboardInterrupt
        evaluated.append(folder.name)
        return original(folder, *args, **kwargs)

    monkeypatch.setattr(repetition, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        repeat(recipe, "seed", VALUES, tmp_path / "runs")
    with pytest.raises(ValueError, match="not empty: pass --resume"):
        repeat(recipe, "seed", VALUES, tmp_path / "runs")
    weights = tmp_path / "runs" / "seed=0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    summary = repeat(recipe, "seed", VALUES, tmp_path / "runs", resume=True)
    assert evaluated == ["seed=0", "cut", "seed=1", "seed=2"] and weights.stat().st_mtime_ns == before
    assert len(summary["metrics"]["accuracy"]["values"]) == 3


@pytest.mark.parametrize(
    ("setting", "values", "message"),
    [
        ("seed", [], "one or more different values"),
        ("seed", ["1", "1"], "one or more different values"),
        ("seed", ["0", "-1"], "`seed` is -1: use"),
        ("dataset.fold", ["0"], "Unknown recipe name `fold`"),
    ],
)
def test_mistakes_are_found_before_training(
    recipe: Path, tmp_path: Path, setting: str, values: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        repeat(recipe, setting, values, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
