"""Evaluation of a saved model on a whole split: as-is, rotated, and with sampled inference."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, EvalPrediction, Trainer, TrainingArguments

from ..hub.values import require_integer
from ..hub.writing import only_writer
from .environment import describe_environment
from .estimators import Estimator, EstimatorRun
from .processes import leave_together
from .recipe import RECIPE_NAME, Recipe
from .run import LOG_NAME
from .tasks import check_recipe, get_task, load_recipe, task_of_config
from .trainer import device_arguments
from .writing import replace_text

EVALUATION_NAME = "evaluation.json"
NO_METRICS = ("changed_predictions", "sampled")
"""What the results of a rotation hold beside metrics."""


class Evaluator:
    """A saved model with its task, recipe and processor, to predict whole splits with.

    Args:
        folder: folder with a model and its processor, and `recipe.yaml` unless `dataset` is given.
        dataset: data set to use in place of the recipe's; must have the same labels.
        split: `"test"` or `"validation"` (the split that the recipe held out).
        batch_size: items per batch and process.

    Raises:
        ValueError: if the folder or the split does not fit.
    """

    def __init__(
        self, folder: str | Path, dataset: str | None = None, split: str = "test", batch_size: int = 32
    ) -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(f"There is no saved model (config.json) in `{folder}`.")
        _check_split(split)
        require_integer("`batch_size`", batch_size, 1)
        self.split = split
        self.recipe = _recipe_of(folder, dataset, split)
        self.task = get_task(self.recipe.task)
        self.model: Any = self.task.model_class_of(self.recipe).from_pretrained(folder)
        self.num_parameters: int | None = sum(parameter.numel() for parameter in self.model.parameters())
        self.processor = self.task.load_processor(folder)
        self.arguments = TrainingArguments(
            output_dir=str(folder),
            per_device_eval_batch_size=batch_size,
            remove_unused_columns=False,
            report_to="none",
            label_names=self.task.label_names(self.model.config),
            **device_arguments(),
        )
        self.process_index = self.arguments.process_index
        self._trainer = Trainer(
            model=self.model,
            args=self.arguments,
            data_collator=self.task.build_collator(self.processor, self.model.config),
            processing_class=self.processor,
            preprocess_logits_for_metrics=self.task.preprocess_logits(self.model.config),
        )

    def load_rows(self, data_dir: str | Path | None) -> Any:
        """Read the split, in one process after the other.

        Raises:
            ValueError: if the data set cannot be read, or has other labels than the model.
        """
        with self.arguments.main_process_first(desc="reading the data"):
            rows = self.task.load_rows(self.recipe, data_dir, self.split)
        self.task.check_labels(self.model.config, rows)
        return rows

    def prepare(self, rows: Any) -> Any:
        """Turn rows into model inputs, the same ones at every call."""
        return self.task.prepare(rows, self.processor, self.recipe.seed)

    def predict(self, data: Any) -> EvalPrediction:
        """Predict prepared rows: logits (or what the task keeps of them) and labels, in order."""
        output = self._trainer.predict(data)
        predictions, labels = output.predictions, output.label_ids
        assert predictions is not None and labels is not None
        return EvalPrediction(predictions, labels)

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, Any]:
        """Metrics of a whole split."""
        return dict(self.task.compute_metrics(prediction, self.model.config))


class EstimatorEvaluator:
    """What [`Evaluator`] is for models, for a run of an [`Estimator`]: fitted again, with what validation chose.

    Args:
        estimator: the method, of the run's recipe.
        folder: folder of a finished run.
        dataset, split: as of [`Evaluator`].

    Raises:
        ValueError: if the run has not finished, or the split does not fit.
    """

    model = None
    num_parameters = None
    process_index = 0

    def __init__(self, estimator: Estimator, folder: Path, dataset: str | None, split: str) -> None:
        _check_split(split)
        if not (folder / LOG_NAME).is_file():
            raise ValueError(f"There is no finished run ({LOG_NAME}) in `{folder}`: train it, with --resume.")
        self.split = split
        self.recipe = _recipe_of(folder, dataset, split)
        self.task = get_task(self.recipe.task)
        self._estimator = estimator
        self._choice = json.loads((folder / LOG_NAME).read_text(encoding="utf-8"))["choice"]

    def load_rows(self, data_dir: str | Path | None) -> Any:
        """Read the split, and fit the method to the training rows.

        Raises:
            ValueError: if the data set cannot be read, or has other labels than the training rows.
        """
        rows = self.task.load_rows(self.recipe, data_dir, self.split)
        self._run = EstimatorRun(self._estimator, self.task, data_dir)
        self.task.check_labels(self._run.config, rows)
        self._scores = self._run.fit(self._choice)
        return rows

    def prepare(self, rows: Any) -> tuple[Any, np.ndarray]:
        """Features and targets of rows."""
        return self._estimator.features(rows), self._estimator.targets(rows)

    def predict(self, data: tuple[Any, np.ndarray]) -> EvalPrediction:
        """Scores and targets of prepared rows, in order."""
        return EvalPrediction(self._scores(data[0]), data[1])

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, Any]:
        """Metrics of a whole split."""
        return self._run.metrics(prediction)


def open_run(
    folder: str | Path, dataset: str | None = None, split: str = "test", batch_size: int = 32
) -> Evaluator | EstimatorEvaluator:
    """What evaluates the run in a folder; arguments and errors as of [`Evaluator`]."""
    folder = Path(folder)
    if (folder / RECIPE_NAME).is_file() and not (folder / "config.json").is_file():
        recipe = load_recipe(folder)
        estimator = get_task(recipe.task).build_estimator(recipe)
        if estimator is not None:
            return EstimatorEvaluator(estimator, folder, dataset, split)
    return Evaluator(folder, dataset, split, batch_size)


def evaluate(
    folder: str | Path,
    data_dir: str | Path | None = None,
    dataset: str | None = None,
    split: str = "test",
    rotations: Sequence[str] | None = None,
    num_sampled_tokens: int | None = None,
    sampled_passes: int = 0,
    seed: int = 0,
    batch_size: int = 32,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a saved model, and write the report as JSON if a file is named.

    Every rotation turns the same clouds, each by its own rotation, and keeps the same sub-sample of their points. Also
    runs in several processes (`accelerate launch`), of which one writes. A baseline that is an [`Estimator`] is fitted
    again first.

    Args:
        folder: folder with a model and its processor, and `recipe.yaml` unless `dataset` is given; or the run of an
            estimator.
        data_dir: where the data sets lie.
        dataset: data set to use in place of the recipe's; must have the same labels.
        split: `"test"` or `"validation"` (the split that the recipe held out).
        rotations: of `"none"`, `"z"`, `"so3"`; by default all that the task knows.
        num_sampled_tokens: K in place of the trained one.
        sampled_passes: passes with samples drawn as in training, beside the deterministic one.
        seed: seeds the rotations and the sampled passes.
        batch_size: items per batch and process.
        output: file to write, in place of an earlier one; by default none, so that the folder stays as it is.
            Publishing reads `evaluation.json` in the folder.

    Returns:
        `dict`: `results` maps each rotation to its metrics, `changed_predictions` (against `"none"`, if that was
        asked for) and, with `sampled_passes`, `sampled` (mean, standard deviation and values of the main metric);
        beside it the settings, date, command, versions and hardware.

    Raises:
        ValueError: if the folder, the split, a rotation or the data set does not fit.
        CannotWriteError: if `output` cannot be written, or another evaluation is to be written there.
    """
    for name, value, minimum in (("sampled_passes", sampled_passes, 0), ("seed", seed, 0)):
        if value < minimum:
            raise ValueError(f"`{name}` must be at least {minimum}, got {value}.")
    evaluator = open_run(folder, dataset, split, batch_size)
    recipe, task, model = evaluator.recipe, evaluator.task, evaluator.model
    rotations = list(dict.fromkeys(task.rotations if rotations is None else rotations))
    unknown = [rotation for rotation in rotations if rotation not in task.rotations]
    if unknown or not rotations:
        raise ValueError(f"`rotations` must be among {', '.join(task.rotations)}, got {', '.join(unknown) or 'none'}.")
    if recipe.baseline is not None and (num_sampled_tokens is not None or sampled_passes):
        raise ValueError(
            f"`num_sampled_tokens` and `sampled_passes` do not go with the baseline {recipe.baseline}: leave them out."
        )
    if num_sampled_tokens is not None:
        model.set_num_sampled_tokens(num_sampled_tokens)
    target = Path(output) if output is not None and evaluator.process_index == 0 else None
    # Held from now on: that nothing can be written there must not show after the evaluation.
    with nullcontext() if target is None else only_writer(target):
        results, num_examples = _results_of(evaluator, data_dir, rotations, sampled_passes, seed)
        report = {
            "model": Path(folder).resolve().name,
            "task": recipe.task,
            "dataset": recipe.dataset["name"],
            "split": split,
            "num_examples": num_examples,
            "num_parameters": evaluator.num_parameters,
            "num_sampled_tokens": None if recipe.baseline else getattr(model.config, "num_sampled_tokens", None),
            "seed": seed,
            "training_seed": recipe.seed,
            "batch_size": batch_size,
            "results": results,
            **describe_environment(),
        }
        if target is not None:
            replace_text(target, json.dumps(report, indent=2) + "\n")
    leave_together()
    return report


def _results_of(
    evaluator: Evaluator | EstimatorEvaluator,
    data_dir: str | Path | None,
    rotations: Sequence[str],
    sampled_passes: int,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], int]:
    """The results of a split by rotation, and its size; arguments as for [`evaluate`]."""
    task = evaluator.task
    rows = evaluator.load_rows(data_dir)
    results: dict[str, dict[str, Any]] = {}
    reference = None
    for rotation in rotations:
        rotated = rows if rotation == "none" else task.rotate(rows, rotation, seed)
        data = evaluator.prepare(rotated)
        prediction = evaluator.predict(data)
        predictions = np.asarray(prediction.predictions)
        result: dict[str, Any] = evaluator.compute_metrics(prediction)
        if rotation == "none":
            reference = predictions
        elif reference is not None:
            result["changed_predictions"] = task.count_changed_predictions(reference, predictions)
        if sampled_passes:
            values = [_sampled_metric(evaluator, data, seed + number) for number in range(sampled_passes)]
            result["sampled"] = {"metric": task.main_metric, **spread_of(values)}
        results[rotation] = result
    return results, len(rows)


def spread_of(values: list[float]) -> dict[str, Any]:
    """Values with their mean and standard deviation (divisor n - 1; None for one value)."""
    return {
        "values": values,
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def format_metric(value: float, is_plain: bool) -> str:
    """A metric as tables show it: fractions in percent."""
    return f"{value:.4f}" if is_plain else f"{100 * value:.2f}"


def format_report(report: dict[str, Any]) -> str:
    """Lay out the results of [`evaluate`] as a table: one line per rotation, fractions in percent."""
    results = report["results"]
    metrics = [name for name in next(iter(results.values())) if name not in NO_METRICS]
    plain = get_task(report["task"]).plain_metrics
    titles = [name.replace("_", " ") + ("" if name in plain else " %") for name in metrics]
    header = ["rotation", *titles, "changed predictions", "sampled %"]
    lines = [header]
    for rotation, result in results.items():
        sampled = result.get("sampled")
        spread = "" if sampled is None or sampled["std"] is None else f" +- {100 * sampled['std']:.2f}"
        lines.append(
            [
                rotation,
                *(format_metric(result[name], name in plain) for name in metrics),
                str(result.get("changed_predictions", "-")),
                "-" if sampled is None else f"{100 * sampled['mean']:.2f}{spread}",
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    table = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    k, num_parameters = report["num_sampled_tokens"], report["num_parameters"]
    sampled_tokens = "" if k is None else f", K = {k}"
    parameters = "" if num_parameters is None else f", {num_parameters:,} parameters"
    return (
        f"{report['model']}: {report['dataset']}, {report['split']} split, {report['num_examples']} examples"
        f"{parameters}{sampled_tokens}\n{table}"
    )


def _check_split(split: str) -> None:
    if split not in ("test", "validation"):
        raise ValueError(f'`split` must be "test" or "validation", got {split!r}.')


def _recipe_of(folder: Path, dataset: str | None, split: str) -> Recipe:
    if (folder / RECIPE_NAME).is_file():
        recipe = load_recipe(folder)
        if split == "validation" and recipe.validation_fraction == 0:
            raise ValueError(f"The recipe in `{folder}` held out no validation data: use the test split.")
        if dataset is not None:
            recipe.dataset["name"] = dataset
        return recipe
    if dataset is None:
        raise ValueError(f"There is no {RECIPE_NAME} in `{folder}`: name the data set with `dataset`.")
    if split == "validation":
        raise ValueError(f"There is no {RECIPE_NAME} in `{folder}` that says what the validation data is.")
    task = task_of_config(AutoConfig.from_pretrained(folder))
    return check_recipe(Recipe(task=task.name, dataset={"name": dataset}))


def _sampled_metric(evaluator: Any, data: Any, seed: int) -> float:
    arguments = evaluator.arguments
    # Processes see different items, so they must not draw the same noise.
    with evaluator.model.sampled_inference(seed=seed * arguments.world_size + arguments.process_index):
        return evaluator.compute_metrics(evaluator.predict(data))[evaluator.task.main_metric]
