"""Ablations: what is trained once, what changes at inference, resuming, mistakes, tables and figures."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.axes import Axes
from safetensors.torch import load_file

from lab.ablations import Study, ablate, format_ablation, plot_ablation, read_results
from lab.ablations import run as ablation
from lab.ablations.grid import grid_averages
from lab.ablations.inference import SAMPLERS, inference_setting, read_inference
from lab.ablations.report import format_measurement
from modeling_sft.training import Evaluator
from modeling_sft.training.evaluation import spread_of
from modeling_sft.training.tasks import point_clouds
from paths import ROOT
from tiny_recipes import TINY_SEQUENCE, tiny_settings

STUDY: dict[str, Any] = {
    "recipe": "recipe.yaml",
    "overrides": ["training.max_steps=2", "training.save_steps=2", "training.eval_steps=2"],
    "seeds": [0, 1],
    "comparisons": {
        "noise": {
            "title": "Noise",
            "variants": {
                "none": ["model.sampling_noise=0"],
                "as it is": [],
                "written": ["model.importance_scale=1.0"],
            },
            "inference": {"num_sampled_tokens": [1, 6, "all"]},
        },
        "estimator": {
            "grid": {"model.sampling_estimator": ["gate", "soft"]},
            "inference": {"sampling_inference": ["systematic", "topk"]},
        },
        "sampler": {
            "variants": {
                "learned": [],
                "random": {"sampler": "random"},
                "farthest": {"overrides": [], "sampler": "farthest_point"},
            }
        },
    },
}


class WithoutTest(dict):
    """Splits whose test data nobody may read."""

    def __getitem__(self, split: str) -> Any:
        assert split != "test", "the test split was read"
        return super().__getitem__(split)


@pytest.fixture(scope="module")
def digits() -> Any:
    rows = point_clouds.load_point_cloud_dataset("digits")["train"].select(range(60))
    with pytest.MonkeyPatch.context() as patch:
        splits = WithoutTest(train=rows, test=None)
        patch.setattr(point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: splits))
        yield


def write_study(folder: Path, settings: dict[str, Any] | None = None, recipe: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = tiny_settings("dataset.validation_fraction=0.3") if recipe is None else recipe
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY if settings is None else settings, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(digits: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ablation")
    study = Study.from_yaml(write_study(folder))
    return study, folder / "runs", ablate(study, folder / "runs")


@pytest.mark.slow
def test_equal_variants_are_trained_once(finished: tuple[Study, Path, dict[str, Any]]) -> None:
    study, output_dir, results = finished
    # Without noise, as it is, soft, random, farthest; each with two seeds.
    folders = sorted(path.name.rpartition("-")[0] for path in output_dir.iterdir() if path.is_dir())
    labels = ("as-it-is", "farthest", "none", "random", "soft")
    assert folders == [f"{label}-seed{seed}" for label in labels for seed in (0, 1)]
    assert not list(output_dir.glob("*/checkpoint-*")) and len(list(output_dir.glob("*/model.safetensors"))) == 10
    assert results["num_runs"] == {"planned": 10, "finished": 10}
    noise = results["comparisons"]["noise"]["variants"]
    assert noise["as it is"]["is_reference"] and noise["written"]["is_reference"] and not noise["none"]["is_reference"]
    assert noise["as it is"]["inference"] == noise["written"]["inference"]
    assert len(study.runs(["sampler"])) == 6


@pytest.mark.slow
def test_results_are_those_of_the_runs(finished: tuple[Study, Path, dict[str, Any]]) -> None:
    _, output_dir, results = finished
    assert json.loads((output_dir / "results.json").read_text()) == results
    assert (results["split"], results["num_examples"], results["metric"]) == ("validation", 18, "accuracy")
    assert len(results["hardware"]) == 1 and results["date"] and results["seeds"] == [0, 1]
    soft = results["comparisons"]["estimator"]["variants"]["soft"]
    runs = [json.loads(next(output_dir.glob(f"soft-seed{s}-*/result.json")).read_text()) for s in (0, 1)]
    assert soft["training_cpu_seconds"] == [run["training_cpu_seconds"] for run in runs]
    assert min(soft["training_cpu_seconds"]) > 0 and min(soft["final_training_loss"]) > 0
    for position, name in enumerate(("systematic", "topk")):
        entry = soft["inference"][position]
        assert entry["settings"] == {"sampling_inference": name}
        assert entry["values"] == [run["evaluations"][position]["metrics"]["accuracy"] for run in runs]
        assert entry["mean"] == pytest.approx(np.mean(entry["values"]))
        assert entry["std"] == pytest.approx(np.std(entry["values"], ddof=1))


@pytest.mark.slow
def test_inference_changes_results_and_nothing_else(finished: tuple[Study, Path, dict[str, Any]]) -> None:
    _, output_dir, _ = finished
    evaluator = Evaluator(next(output_dir.glob("as-it-is-seed0-*")), split="validation")
    data, config = evaluator.prepare(evaluator.load_rows(None)), evaluator.model.config
    weights = {name: value.clone() for name, value in evaluator.model.state_dict().items()}
    settings = read_inference({"num_sampled_tokens": [1, 6, 1000, "all"]}, "test")
    settings += read_inference({"sampling_inference": ["systematic", "topk"]}, "test") + ({},)
    logits = []
    for setting in settings:
        with inference_setting(evaluator.model, setting):
            logits.append(np.asarray(evaluator.predict(data).predictions))
    one, trained, many, everything, systematic, topk, plain = logits
    np.testing.assert_allclose(many, everything, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(trained, plain)
    np.testing.assert_array_equal(systematic, plain)
    for other in (one, everything, topk):
        assert np.abs(other - plain).max() > 1e-4
    assert config.num_sampled_tokens == 6 and config.sampling_inference is None
    assert all(torch.equal(value, weights[name]) for name, value in evaluator.model.state_dict().items())


@pytest.mark.slow
def test_samplers_train_and_evaluate(
    finished: tuple[Study, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, output_dir, results = finished
    weights = [load_file(next(output_dir.glob(f"{n}-seed0-*")) / "model.safetensors") for n in ("as-it-is", "random")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    calls, original = [], SAMPLERS["random"]

    def counting(*arguments: Any) -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        return original(*arguments)

    monkeypatch.setitem(SAMPLERS, "random", counting)
    shutil.copytree(output_dir, tmp_path / "runs")
    # One run is evaluated again, to the same result, and the other trained again.
    next((tmp_path / "runs").glob("random-seed0-*/result.json")).unlink()
    again = ablate(study, tmp_path / "runs", only=["sampler"], resume=True)
    assert calls and not any(calls)
    assert again["comparisons"] == results["comparisons"]
    shutil.rmtree(next((tmp_path / "runs").glob("random-seed1-*")))
    again = ablate(study, tmp_path / "runs", only=["sampler"], resume=True)
    assert any(calls)
    found, before = (each["comparisons"]["sampler"]["variants"]["random"] for each in (again, results))
    assert found["inference"] == before["inference"]


@pytest.mark.slow
def test_parts_may_run_side_by_side(
    finished: tuple[Study, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, output_dir, results = finished
    shutil.copytree(output_dir, tmp_path / "runs")
    other = next((tmp_path / "runs").glob("random-seed0-*/result.json"))
    content, run = other.read_text(), ablation._run
    other.unlink()

    def run_beside_another(*arguments: Any) -> None:
        run(*arguments)
        other.write_text(content)

    monkeypatch.setattr(ablation, "_run", run_beside_another)
    assert ablate(study, tmp_path / "runs", only=["estimator"], resume=True) == results


@pytest.mark.slow
def test_a_study_may_be_extended(finished: tuple[Study, Path, dict[str, Any]], tmp_path: Path) -> None:
    output_dir = tmp_path / "runs"
    shutil.copytree(finished[1], output_dir)
    for path in output_dir.glob("*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hardware": "another machine"}))
    folders = sorted(output_dir.glob("*/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in folders]
    # The runs were started for a variant that spelled nothing out; now the first that asks for them does.
    written = {"written": ["model.importance_scale=1.0"], "as it is": []}
    noise = {"variants": written, "inference": {"num_sampled_tokens": [1, 3]}}
    study = Study.from_yaml(write_study(tmp_path, STUDY | {"comparisons": {"noise": noise}}))
    variants = ablate(study, output_dir, resume=True)["comparisons"]["noise"]["variants"]
    assert sorted(output_dir.glob("*/model.safetensors")) == folders
    assert [path.stat().st_mtime_ns for path in folders] == before
    for variant in variants.values():
        assert [len(entry["values"]) for entry in variant["inference"]] == [2, 2]
        assert variant["hardware"] == ["another machine"] * 2


@pytest.mark.slow
def test_interrupted_study_resumes(digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.from_yaml(write_study(tmp_path, STUDY | {"seeds": [0]}))
    evaluated: list[str] = []

    class Interrupted(Evaluator):
        def __init__(self, folder: Path, **kwargs: Any) -> None:
            evaluated.append(folder.name.partition("-")[0])
            if len(evaluated) == 2:
                raise KeyboardInterrupt
            super().__init__(folder, **kwargs)

    monkeypatch.setattr(ablation, "Evaluator", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        ablate(study, tmp_path / "runs", only=["estimator"])
    cut = next((tmp_path / "runs").glob("soft-*"))
    assert list(cut.glob("checkpoint-*")) and not (cut / "result.json").exists()
    kept = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert kept["num_runs"] == {"planned": 5, "finished": 1} and list(
        kept["comparisons"]["estimator"]["variants"]
    ) == ["gate"]
    with pytest.raises(ValueError, match="not empty: pass --resume"):
        ablate(study, tmp_path / "runs")
    files = [*(tmp_path / "runs").glob("*/model.safetensors")]
    before = [path.stat().st_mtime_ns for path in files]
    results = ablate(study, tmp_path / "runs", only=["estimator"], resume=True)
    assert evaluated == ["as", "soft", "soft"] and not list(cut.glob("checkpoint-*"))
    assert [path.stat().st_mtime_ns for path in files] == before and len(before) == 2
    assert list(results["comparisons"]["estimator"]["variants"]) == ["gate", "soft"]
    assert results["comparisons"]["estimator"]["variants"]["soft"]["inference"][0]["std"] is None


def changed(**changes: Any) -> dict[str, Any]:
    return STUDY | changes


def of_variant(variant: Any, **more: Any) -> dict[str, Any]:
    return changed(comparisons={"c": {"variants": {"v": variant}, **more}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (of_variant(["model.hiden_size=3"]), "variant `v` of comparison `c`.*did you mean `hidden_size`"),
        (of_variant({"sampler": "learned"}), "`sampler` of variant `v`.*random, farthest_point"),
        (of_variant(["seed=3"]), "use the study's `seeds`"),
        (of_variant([], inference={"num_sampled_tokens": [0]}), "integers of at least 1, or all"),
        (of_variant([], inference={"sampling_inference": ["random"]}), "use systematic or topk"),
        (of_variant([], inference={"noise": [1]}), "Unknown recipe name `noise`"),
        (of_variant([], grid={"model.sampling_noise": [0]}), "either `variants` or `grid`"),
        (changed(comparisons={"c": {"variants": {}}}), "comparison `c` is empty"),
        (changed(comparisons={}), "`comparisons` is empty"),
        (changed(seeds=[0, 1, 0]), "different integers"),
        (changed(overrides=["dataset.validation_fraction=0"]), "validation data"),
        (changed(recipe="absent.yaml"), "no recipe at"),
        (changed(sedes=[1]), "did you mean `seeds`"),
    ],
)
def test_mistakes_are_found_before_training(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study.from_yaml(write_study(tmp_path, settings))


def test_farthest_points_need_points(tmp_path: Path) -> None:
    path = write_study(tmp_path, of_variant({"sampler": "farthest_point"}) | {"overrides": []}, TINY_SEQUENCE)
    with pytest.raises(ValueError, match="needs points"):
        Study.from_yaml(path)


def test_unknown_comparison(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no comparison `noize`; there are noise, estimator, sampler"):
        ablate(Study.from_yaml(write_study(tmp_path)), tmp_path / "runs", only=["noize"])
    assert not (tmp_path / "runs").exists()


def test_grids_are_all_products(tmp_path: Path) -> None:
    grid = {"model.sampling_estimator": ["gate", "soft"], "model.sampling_noise": [0, 0.25, 0.5]}
    study = Study.from_yaml(write_study(tmp_path, changed(comparisons={"c": {"grid": grid}})))
    variants = study.comparisons["c"].variants
    assert [variant.label for variant in variants] == [
        f"{estimator}, sampling noise {noise}" for estimator in ("gate", "soft") for noise in (0, 0.25, 0.5)
    ]
    assert [variant.runs[1].recipe.model["sampling_noise"] for variant in variants] == [0, 0.25, 0.5] * 2
    assert [variant.is_reference for variant in variants] == [False, False, True, False, False, False]
    assert {run.recipe.seed for run, _ in study.runs().values()} == {0, 1} and len(study.runs()) == 12


def results_of(values: dict[str, dict[int, float]]) -> dict[str, Any]:
    """Results as `ablate` returns them, of variants given as seed -> accuracy."""
    variants = {
        label: {
            "overrides": [f"model.number={number}"],
            "is_reference": label == "base",
            "seeds": list(by_seed),
            "inference": [{"settings": {}, **spread_of(list(by_seed.values()))}],
            "training_cpu_seconds": [10.0, 20.0],
            "hardware": ["slow", "slow"],
            "final_training_loss": [0.5, 1.5],
        }
        for number, (label, by_seed) in enumerate(values.items())
    }
    comparisons = {"c": {"title": "Title", "variants": variants}}
    return {
        "task": "point-cloud-classification",
        "metric": "accuracy",
        "hardware": ["slow"],
        "comparisons": comparisons,
    }


def test_tables_compare_seed_by_seed() -> None:
    base = {0: 0.40, 1: 0.50, 2: 0.60}
    results = results_of(
        {
            # Seeds differ by far more than these two, each of which is below the reference with every seed.
            "steady": {0: 0.37, 1: 0.48, 2: 0.57},
            "base": base,
            "unsteady": {0: 0.49, 1: 0.48, 2: 0.52},
            "other order": {2: 0.57, 0: 0.37, 1: 0.48},
            "part": {1: 0.52},
            "other seeds": {7: 0.5, 8: 0.6},
            "equal": base,
        }
    )
    lines = format_ablation(results).splitlines()
    assert lines[4] == "| **base** (reference) | as trained | 50.00 ± 10.00 |  | 40.00, 50.00, 60.00 | 1.000 | 15 |"
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[3] for line in lines[5:]}
    # Half of the interval: 4.303 times the standard deviation, divided by the root of 3.
    assert cells == {
        "steady": "-2.67 ± 1.43",
        "unsteady": "-0.33 ± 21.42 (tie)",
        "other order": "-2.67 ± 1.43",
        "part": "+2.00",
        "other seeds": "-",
        "equal": "+0.00 ± 0.00 (tie)",
    }


def grid_results() -> dict[str, Any]:
    """A grid in which noise costs 0.1, a scale of 4 gains 0.02 with seed 0 only, and topk costs 0.04."""
    variants = {}
    for noise, scale in itertools.product(("0", "1"), ("1", "4")):
        by_seed = {s: 0.5 + 0.1 * s - 0.1 * int(noise) + (0.02 if (scale, s) == ("4", 0) else 0.0) for s in (0, 1)}
        entry = results_of({"v": by_seed})["comparisons"]["c"]["variants"]["v"]
        entry |= {
            "overrides": [f"model.noise={noise}", f"model.scale={scale}"],
            "is_reference": (noise, scale) == ("1", "1"),
        }
        topk = {"settings": {"sampling_inference": "topk"}, **spread_of([v - 0.04 for v in by_seed.values()])}
        systematic = {"settings": {"sampling_inference": "systematic"}, **spread_of(list(by_seed.values()))}
        variants[f"{noise}, {scale}"] = entry | {"inference": [systematic, topk]}
    return results_of({}) | {"comparisons": {"c": {"title": "Title", "variants": variants}}}


def test_a_grid_is_averaged_over_its_other_settings() -> None:
    results = grid_results()
    table = format_ablation(results).partition("Each setting averaged")[2].splitlines()[4:]
    cells = [line.strip("| ").split(" | ") for line in table]
    assert [row[:2] for row in cells] == [
        ["model.noise", "0"],
        ["model.noise", "**1**"],
        ["model.scale", "**1**"],
        ["model.scale", "4"],
        ["inference", "**systematic**"],
        ["inference", "topk"],
    ]
    # Of the means of seeds 0 and 1: half of the interval is 12.706 times the deviation, divided by the root of 2.
    assert [row[3].strip() for row in cells] == ["+10.00 ± 0.00", "", "", "+1.00 ± 12.71 (tie)", "", "-4.00 ± 0.00"]
    assert cells[0][4] == "49.00, 58.00" and cells[1][4] == "39.00, 48.00"


@pytest.mark.parametrize("missing", ["variant", "seed", "setting"])
def test_averages_need_the_whole_grid(missing: str) -> None:
    comparison = grid_results()["comparisons"]["c"]
    assert len(grid_averages(comparison)) == 6
    variant = comparison["variants"]["0, 4"]
    if missing == "variant":
        del comparison["variants"]["0, 4"]
    elif missing == "seed":
        variant["seeds"] = [0]
        variant["inference"] = [entry | spread_of(entry["values"][:1]) for entry in variant["inference"]]
    else:
        variant["overrides"] = ["model.noise=0"]
    assert grid_averages(comparison) == []


def test_processor_times_say_which_machine_they_are_of() -> None:
    results = results_of({"base": {0: 0.4, 1: 0.5}, "both": {0: 0.4, 1: 0.5}, "fast": {0: 0.4, 1: 0.5}})
    results["hardware"] = ["slow", "fast"]
    variants = results["comparisons"]["c"]["variants"]
    variants["both"]["hardware"], variants["fast"]["hardware"] = ["slow", "fast"], ["fast", "fast"]
    times = [line.split(" | ")[-1] for line in format_ablation(results).splitlines()[4:]]
    assert times == ["15 (a) |", "15 (a, b) |", "15 (b) |"]
    described = {"recipe": "r", "overrides": [], "dataset": "d", "num_examples": 3, "seeds": [0, 1]}
    described |= {"num_runs": {"planned": 6, "finished": 6}, "date": "2026-01-02T03:04:05+00:00"}
    assert "Measured until 2026-01-02 on slow (a) and fast (b); the letters" in format_measurement(results | described)


def test_figures_show_what_the_tables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []
    titles: list[str] = []
    errorbar, set_title = Axes.errorbar, Axes.set_title

    def recording(axes: Axes, x: Any, y: Any, **settings: Any) -> Any:
        drawn.append((round(float(x), 2), round(float(settings["xerr"]), 2)))
        return errorbar(axes, x, y, **settings)

    def titling(axes: Axes, title: str, **settings: Any) -> Any:
        titles.append(title)
        return set_title(axes, title, **settings)

    monkeypatch.setattr(Axes, "errorbar", recording)
    monkeypatch.setattr(Axes, "set_title", titling)
    base = {0: 0.40, 1: 0.50, 2: 0.60}
    results = results_of({"base": base, "steady": {0: 0.37, 1: 0.48, 2: 0.57}}) | {
        "study": "s",
        "dataset": "d",
        "seeds": [0, 1, 2],
    }
    # Nothing can be compared with a reference that stands alone.
    results["comparisons"]["alone"] = results_of({"base": base})["comparisons"]["c"] | {"title": "alone"}
    plot_ablation(results, tmp_path / "figure.png")
    assert drawn == [(-2.67, 1.43)] and titles == ["Title"]
    drawn.clear()
    # Without a reference, values themselves with their deviation.
    results["comparisons"] = results_of({"a": base, "b": {0: 0.2, 1: 0.3, 2: 0.4}})["comparisons"]
    plot_ablation(results, tmp_path / "figure.png")
    assert drawn == [(50.0, 10.0), (30.0, 10.0)]


@pytest.mark.parametrize("hardware", ["a machine", None])
def test_results_without_a_list_of_machines_are_refused(hardware: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_of({}) | {"study": "s", "hardware": hardware}))
    with pytest.raises(ValueError, match="no list of machines: write it anew"):
        read_results(path)


def test_differences_need_every_evaluation() -> None:
    results = results_of({"base": {0: 0.4, 1: 0.5}, "half": {0: 0.5, 1: 0.6}})
    half = results["comparisons"]["c"]["variants"]["half"]["inference"][0]
    half |= spread_of([0.6])
    # Which seed the one value is of is not known.
    assert "| half | as trained | 60.00 | - | 60.00 |" in format_ablation(results)


@pytest.mark.slow
def test_page_and_figures(
    finished: tuple[Study, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, output_dir, results = finished
    spec = importlib.util.spec_from_file_location("script_ablate", ROOT / "scripts" / "ablate.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = ["--report", output_dir / "results.json", "--docs", tmp_path / "docs" / "page.md"]
    arguments += ["--figures", tmp_path / "docs" / "figures"]
    monkeypatch.setattr(sys, "argv", ["ablate.py", *map(str, arguments)])
    assert script.main() == 0
    page = (tmp_path / "docs" / "page.md").read_text()
    assert "## tiny" in page and "### Noise" in page and format_ablation(results) in page
    assert "](figures/ablation-tiny.png)" in page
    assert f"seeds 0, 1, 10 trainings. Measured until {results['date'][:10]} on {results['hardware'][0]}." in page
    image = tmp_path / "docs" / "figures" / "ablation-tiny.png"
    assert image.read_bytes().startswith(b"\x89PNG") and image.stat().st_size > 10_000
    smaller = results | {"comparisons": {"sampler": results["comparisons"]["sampler"]}}
    plot_ablation(smaller, tmp_path / "one.png")
    assert 0 < (tmp_path / "one.png").stat().st_size < image.stat().st_size
    (tmp_path / "other.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["ablate.py", "--report", str(tmp_path / "other.json")])
    assert script.main() == 2


@pytest.mark.parametrize("name", ["shrec16", "nci1", "mnist"])
def test_committed_studies_are_valid(name: str) -> None:
    study = Study.from_yaml(ROOT / "configuration" / "ablations" / f"{name}.yaml")
    assert study.seeds == (0, 1, 2) and len(study.comparisons) >= 7
    for comparison in study.comparisons.values():
        assert any(variant.is_reference for variant in comparison.variants) or comparison.title.startswith("estimator")
    labels = [variant.label for variant in study.comparisons["sampler"].variants]
    assert "1 random token" in labels and ("farthest point" in labels) == (name == "shrec16")
