"""Ablations: the variants of a study trained over seeds and evaluated on validation data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modeling_sft.hub.optional import import_optional
from modeling_sft.training.environment import describe_environment
from modeling_sft.training.evaluation import Evaluator, spread_of
from modeling_sft.training.recipe import RECIPE_NAME, Recipe
from modeling_sft.training.run import train
from modeling_sft.training.tasks import get_task
from modeling_sft.training.writing import replace_text

from .inference import inference_setting, use_sampler
from .study import Run, Study, Variant

RESULT_NAME = "result.json"
RESULTS_NAME = "results.json"
_ENVIRONMENT = ("date", "versions", "num_processes")


def ablate(
    study: Study,
    output_dir: str | Path,
    data_dir: str | Path | None = None,
    only: Sequence[str] = (),
    resume: bool = False,
) -> dict[str, Any]:
    """Train every variant of a study once per seed, and evaluate it on the validation split.

    The test split is not touched. Variants that come to the same recipe and sampler are trained once. A run is written
    to `output_dir/LABEL-seedS-HASH`; its checkpoints are deleted once it is evaluated. `output_dir/results.json` is
    written after every run, from all runs that are finished by then. So parts of a study (`only`) may run side by side
    in one folder (`resume`), as long as no two parts share a run.

    Args:
        study: what to compare.
        output_dir: folder to write; must be absent or empty unless `resume`.
        data_dir: where the data sets lie.
        only: names of comparisons; all by default.
        resume: keep the runs that are finished, and continue one that was interrupted.

    Returns:
        `dict`: `comparisons` maps names to `title` and `variants`. A variant holds `is_reference`, its settings, and
        for each finished seed `training_cpu_seconds`, `hardware` and `final_training_loss`. Its `inference` has for
        each setting the `values` of the metric per seed, their `mean`, and their standard deviation `std` (divisor
        n - 1; None for one value). Further keys hold the metric, the number of validation examples, `hardware` (all
        machines, the machine of the first run first), and date and versions of the last run.

    Raises:
        ValueError: if the folder is in use, a comparison is unknown, or a recipe does not fit the data.
    """
    output_dir = Path(output_dir)
    planned, whole = study.runs(only), study.runs()
    if not resume and output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"`output_dir` {output_dir} is not empty: pass --resume or another folder.")
    results: dict[str, Any] = {}
    tqdm = import_optional("tqdm.auto", "train").tqdm
    for run, settings in tqdm(planned.values(), desc=f"runs of {study.name}", unit="run"):
        _run(run, settings, output_dir, data_dir)
        # The results cover all runs in the folder, so other parts of the study stay in, also those still running.
        finished = {key: result for key, (each, _) in whole.items() if (result := _finished(each, output_dir))}
        results = _results(study, finished)
        replace_text(output_dir / RESULTS_NAME, json.dumps(results, indent=2) + "\n")
    return results


def _run(run: Run, settings: Sequence[dict[str, Any]], output_dir: Path, data_dir: str | Path | None) -> None:
    """Train and evaluate a run, except for what is already done."""
    folder = _folder_of(run, output_dir)
    result = _finished(run, output_dir)
    known = [] if result is None else result["evaluations"]
    missing = [setting for setting in settings if all(entry["settings"] != setting for entry in known)]
    if result is None or missing:
        # Continue with the recipe that the run started with: the study may now spell the same settings differently.
        started = folder / RECIPE_NAME
        recipe = Recipe.from_yaml(started) if started.is_file() else run.recipe
        # If the training is finished, this only returns its log.
        log = train(recipe, folder, data_dir, folder.is_dir(), prepare_model=partial(use_sampler, sampler=run.sampler))
        evaluations, num_examples = _evaluate(run, folder, missing, data_dir)
        losses = [entry["loss"] for entry in log["log_history"] if "loss" in entry]
        result = {
            # Name the machine of the training, as it explains the training's time, not the machine of this evaluation.
            **(describe_environment() if result is None else result),
            "label": run.label,
            "sampler": run.sampler,
            "training_cpu_seconds": log["training_cpu_seconds"],
            "final_training_loss": losses[-1] if losses else None,
            "num_parameters": log["num_parameters"],
            "num_examples": num_examples,
            "evaluations": [*known, *evaluations],
        }
        replace_text(folder / RESULT_NAME, json.dumps(result, indent=2) + "\n")
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _evaluate(
    run: Run, folder: Path, settings: Sequence[Mapping[str, Any]], data_dir: str | Path | None
) -> tuple[list[dict[str, Any]], int]:
    evaluator = Evaluator(folder, split="validation")
    rows = evaluator.load_rows(data_dir)
    data = evaluator.prepare(rows)
    use_sampler(evaluator.model, run.sampler)
    evaluations = []
    for setting in settings:
        # A random sampler draws from the global generator, so seed it here and restore it afterwards.
        with torch.random.fork_rng(), inference_setting(evaluator.model, setting):
            torch.manual_seed(run.recipe.seed)
            metrics = evaluator.compute_metrics(evaluator.predict(data))
        evaluations.append({"settings": dict(setting), "metrics": metrics})
    return evaluations, len(rows)


def _folder_of(run: Run, output_dir: Path) -> Path:
    # The hash identifies a run, so that its label can be changed later.
    return next(output_dir.glob(f"*-{run.key}"), output_dir / run.folder)


def _finished(run: Run, output_dir: Path) -> dict[str, Any] | None:
    path = _folder_of(run, output_dir) / RESULT_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _results(study: Study, finished: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    task = get_task(study.reference.task)
    last = max(finished.values(), key=_date)
    comparisons = {}
    for name, comparison in study.comparisons.items():
        variants = {
            variant.label: _variant_results(variant, finished, task.main_metric)
            for variant in comparison.variants
            if any(run.key in finished for run in variant.runs)
        }
        if variants:
            comparisons[name] = {"title": comparison.title, "variants": variants}
    return {
        "study": study.name,
        "recipe": study.recipe_name,
        "overrides": list(study.overrides),
        "task": study.reference.task,
        "dataset": study.reference.dataset["name"],
        "split": "validation",
        "num_examples": last["num_examples"],
        "metric": task.main_metric,
        "greater_is_better": task.greater_is_better,
        "seeds": list(study.seeds),
        "num_runs": {"planned": len(study.runs()), "finished": len(finished)},
        "comparisons": comparisons,
        **{name: last[name] for name in _ENVIRONMENT},
        "hardware": list(dict.fromkeys(run["hardware"] for run in sorted(finished.values(), key=_date))),
    }


def _date(result: Mapping[str, Any]) -> str:
    return result["date"]


def _variant_results(variant: Variant, finished: Mapping[str, dict[str, Any]], metric: str) -> dict[str, Any]:
    runs = [run for run in variant.runs if run.key in finished]
    results = [finished[run.key] for run in runs]
    inference = []
    for setting in variant.inference:
        found = [entry for result in results for entry in result["evaluations"] if entry["settings"] == setting]
        if found:
            inference.append({"settings": setting, **spread_of([entry["metrics"][metric] for entry in found])})
    return {
        "overrides": list(variant.overrides),
        "sampler": variant.sampler,
        "is_reference": variant.is_reference,
        "seeds": [run.recipe.seed for run in runs],
        "num_parameters": results[0]["num_parameters"],
        **{
            name: [result[name] for result in results]
            for name in ("training_cpu_seconds", "hardware", "final_training_loss")
        },
        "inference": inference,
    }
