"""A whole training run: recipe in, folder with a trained model out."""

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerState, TrainingArguments
from transformers.utils import logging

from ..hub.checkpoint_files import check_shard_indices
from ..hub.optional import import_optional
from ..hub.writing import only_writer, plain_errors, remove_leftovers
from .callbacks import (
    BestCheckpointCallback,
    DatasetEpochCallback,
    HeapTrimCallback,
    ProcessorTimeCallback,
    SamplingNoiseCallback,
)
from .checkpoints import (
    STATE_NAME,
    best_checkpoint_of,
    find_last_checkpoint,
    training_had_finished,
)
from .environment import describe_environment
from .estimators import Estimator, EstimatorRun
from .figures import plot_training_curves
from .processes import leave_together
from .recipe import RECIPE_NAME, Recipe
from .tasks import Task, check_recipe, get_task
from .trainer import SFTTrainer, activation_checkpointing_arguments, device_arguments
from .writing import replace_text

logger = logging.get_logger(__name__)

LOG_NAME = "training_log.json"
CURVES_NAME = "curves.png"
LOCK_NAME = ".training.lock"


def build_training_arguments(recipe: Recipe, output_dir: str | Path) -> TrainingArguments:
    """Build the training arguments of a recipe.

    With validation data, a checkpoint is evaluated and saved after every epoch and the best one is loaded at the end,
    unless the recipe says otherwise.

    Args:
        recipe: its `training` section wins over these defaults.
        output_dir: folder of the run.

    Raises:
        ValueError: if the arguments contradict each other.
    """
    task = get_task(recipe.task)
    arguments: dict[str, Any] = {
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 2,
        "report_to": "none",
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        **device_arguments(),
        "restore_callback_states_from_checkpoint": True,
    }
    if recipe.validation_fraction > 0:
        arguments |= {
            "eval_strategy": "epoch",
            "load_best_model_at_end": True,
            "metric_for_best_model": task.main_metric,
            "greater_is_better": task.greater_is_better,
        }
    arguments |= activation_checkpointing_arguments(recipe.training)
    if recipe.validation_fraction == 0 and str(arguments.get("eval_strategy", "no")) != "no":
        raise ValueError("`training.eval_strategy` needs validation data: set `dataset.validation_fraction` above 0.")
    # Data order must be the same in all processes, whose own seeds differ.
    return TrainingArguments(output_dir=str(output_dir), seed=recipe.seed, data_seed=recipe.seed, **arguments)


def train(
    recipe: Recipe,
    output_dir: str | Path,
    data_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    prepare_model: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Train a model as a recipe says, select the best checkpoint on the validation data, and save everything.

    Writes into `output_dir`: the model, its processor, `recipe.yaml`, `training_log.json`, `curves.png` and the
    checkpoints. The test split is not touched. Also runs in several processes (`accelerate launch`).

    A baseline that is an [`Estimator`] is fitted instead, with each of its choices, in one process. Of it only
    `recipe.yaml` and `training_log.json` are written, as no format without code keeps trees and the like.

    Args:
        recipe: what to train.
        output_dir: folder to write; must be absent or empty unless `resume` or `overwrite`.
        data_dir: where the data sets lie.
        resume: continue an interrupted run from its last whole checkpoint, to the same weights as without the
            interruption; starts from the beginning if there is none.
        overwrite: delete an earlier run in the folder first.
        prepare_model: called with the model once it is built, on resuming too: for what no recipe can say, such as
            `set_sampler`.

    Returns:
        `dict`: The content of `training_log.json`: `validation` (metrics, empty without validation data), `recipe`,
        `num_parameters`, `training_seconds`, `training_cpu_seconds` (of this process, and up to the
        checkpoint of the runs before it was resumed), `log_history`, date, command, versions and hardware. Of an
        estimator also `choice`, what validation chose, and `choices`, the metrics of all; it has no parameters (None).

    Raises:
        ValueError: if the folder is in use, or the recipe does not fit its task, the data or the run that is resumed.
        CannotWriteError: if the folder cannot be written, or another training is writing there.
    """
    output_dir = Path(output_dir)
    check_recipe(recipe)
    arguments = build_training_arguments(recipe, output_dir)
    estimator = get_task(recipe.task).build_estimator(recipe)
    if estimator is not None and (arguments.world_size > 1 or prepare_model is not None):
        what = "`prepare_model`" if prepare_model is not None else "a launch in several processes"
        raise ValueError(f"The baseline {recipe.baseline} is no model of PyTorch: leave out {what}.")
    if arguments.process_index > 0:
        return _train(recipe, arguments, output_dir, data_dir, resume, overwrite, prepare_model)
    _check_folder(output_dir, recipe, resume, overwrite)
    # Held to the end: two runs would delete each other's checkpoints.
    with only_writer(output_dir, output_dir / LOCK_NAME):
        remove_leftovers(output_dir)
        if estimator is not None:
            return _fit(estimator, output_dir, data_dir, resume, overwrite)
        return _train(recipe, arguments, output_dir, data_dir, resume, overwrite, prepare_model)


def _train(
    recipe: Recipe,
    arguments: TrainingArguments,
    output_dir: Path,
    data_dir: str | Path | None,
    resume: bool,
    overwrite: bool,
    prepare_model: Callable[[Any], None] | None,
) -> dict[str, Any]:
    """[`train`] in a folder that was checked."""
    task = get_task(recipe.task)
    is_main = arguments.process_index == 0
    with arguments.main_process_first(desc="reading the data"):
        train_rows = task.load_rows(recipe, data_dir, "train")
        validation_rows = task.load_rows(recipe, data_dir, "validation") if recipe.validation_fraction > 0 else None
        processor = task.fit_processor(recipe, data_dir)
    checkpoint = None
    if resume:
        finished = _finished_log(output_dir, recipe)
        if finished is not None:
            logger.warning(f"The run in {output_dir} has finished: nothing to resume.")
            return finished
        checkpoint = find_last_checkpoint(output_dir, arguments.world_size, delete_broken=is_main)
        if is_main:
            logger.warning(f"Resuming from {checkpoint}." if checkpoint else "No checkpoint yet: starting anew.")

    set_seed = import_optional("accelerate.utils", "train").set_seed
    set_seed(recipe.seed)
    model: Any = task.build_model(recipe, train_rows, processor)
    _check_batch_norm(recipe, model)
    if recipe.attn_implementation is not None:
        model.set_attn_implementation(recipe.attn_implementation)
    if prepare_model is not None:
        prepare_model(model)
    trainer = _build_trainer(task, recipe, model, processor, arguments, train_rows, validation_rows)
    if is_main:
        _claim_folder(output_dir, recipe, overwrite)
    # After Trainer's own seeding: processes that draw the same sampling noise would waste it.
    set_seed(recipe.seed, device_specific=True)
    if checkpoint is not None and training_had_finished(checkpoint, arguments):
        best = task.model_class_of(recipe).from_pretrained(best_checkpoint_of(checkpoint) or checkpoint)
        model.load_state_dict(best.state_dict())
        if recipe.baseline is None:
            model.set_sampling_noise(best.config.sampling_noise)
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE_NAME))
        cpu_seconds = ProcessorTimeCallback.seconds_of(trainer.state)
    else:
        if checkpoint is not None:
            check_shard_indices(checkpoint)
            if arguments.load_best_model_at_end:
                trainer.add_callback(BestCheckpointCallback(best_checkpoint_of(checkpoint)))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        # Resuming puts another instance in the place of the one that was given.
        callbacks = trainer.callback_handler.callbacks
        cpu_seconds = next(each.seconds for each in callbacks if isinstance(each, ProcessorTimeCallback))
    log_history = list(trainer.state.log_history)
    metrics = trainer.evaluate() if validation_rows is not None else {}
    log = {
        "validation": {
            name.removeprefix("eval_"): value
            for name, value in metrics.items()
            if name != "epoch" and not name.endswith(("_runtime", "_per_second"))
        },
        "best_checkpoint": trainer.state.best_model_checkpoint and Path(trainer.state.best_model_checkpoint).name,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_seconds": next((e["train_runtime"] for e in reversed(log_history) if "train_runtime" in e), None),
        "training_cpu_seconds": cpu_seconds,
        **describe_environment(),
        "recipe": recipe.to_dict(),
        "log_history": log_history,
    }
    if is_main:
        with plain_errors(output_dir):
            model.save_pretrained(output_dir)
            trainer.processing_class.save_pretrained(output_dir)
            recipe.save(output_dir)
            plot_training_curves(log_history, task.main_metric, output_dir / CURVES_NAME)
            replace_text(output_dir / LOG_NAME, json.dumps(log, indent=2) + "\n")
    leave_together()
    return log


def _fit(
    estimator: Estimator, output_dir: Path, data_dir: str | Path | None, resume: bool, overwrite: bool
) -> dict[str, Any]:
    """[`train`] for an estimator, in a folder that was checked."""
    recipe = estimator.recipe
    finished = _finished_log(output_dir, recipe) if resume else None
    if finished is not None:
        logger.warning(f"The run in {output_dir} has finished: nothing to resume.")
        return finished
    task = get_task(recipe.task)
    validation_rows = task.load_rows(recipe, data_dir, "validation")
    seconds, cpu_seconds = time.perf_counter(), time.process_time()
    tried = EstimatorRun(estimator, task, data_dir).choose(validation_rows)
    log = {
        **tried[0],
        "choices": tried,
        "num_parameters": None,
        "training_seconds": time.perf_counter() - seconds,
        "training_cpu_seconds": time.process_time() - cpu_seconds,
        **describe_environment(),
        "recipe": recipe.to_dict(),
    }
    _claim_folder(output_dir, recipe, overwrite)
    replace_text(output_dir / LOG_NAME, json.dumps(log, indent=2) + "\n")
    return log


def _build_trainer(
    task: Task,
    recipe: Recipe,
    model: PreTrainedModel,
    processor: Any,
    arguments: TrainingArguments,
    train_rows: Any,
    validation_rows: Any | None,
) -> SFTTrainer:
    arguments.label_names = task.label_names(model.config)
    train_data = task.prepare_training(train_rows, processor, recipe.seed, task.build_augmentation(recipe))
    callbacks: list[Any] = [DatasetEpochCallback(train_data), ProcessorTimeCallback(), HeapTrimCallback()]
    if recipe.sampling_noise_schedule is not None:
        callbacks.append(SamplingNoiseCallback(model.config.sampling_noise, recipe.sampling_noise_schedule))
    if recipe.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(recipe.early_stopping.patience, recipe.early_stopping.threshold))
    return SFTTrainer(
        model=model,
        args=arguments,
        data_collator=task.build_collator(processor, model.config),
        train_dataset=train_data,
        eval_dataset=None if validation_rows is None else task.prepare(validation_rows, processor, recipe.seed),
        processing_class=processor,
        compute_metrics=partial(task.compute_metrics, config=model.config),
        preprocess_logits_for_metrics=task.preprocess_logits(model.config),
        callbacks=callbacks,
        importance_scorer=recipe.importance_scorer,
        context_hashes=recipe.context_hashes,
        max_tokens_per_batch=recipe.max_tokens_per_batch,
        sort_within_step=recipe.sort_within_step,
    )


def _finished_log(output_dir: Path, recipe: Recipe) -> dict[str, Any] | None:
    path = output_dir / LOG_NAME
    log = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    # As recipes, not as they are written: a release of ours that adds a field does not make runs unfinished.
    return log if log is not None and Recipe.from_dict(log["recipe"]) == recipe else None


def _check_folder(output_dir: Path, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise ValueError("`resume` and `overwrite` exclude each other: choose one.")
    if output_dir.is_file():
        raise ValueError(f"`output_dir` {output_dir} is a file: name a folder.")
    in_use = output_dir.is_dir() and any(path.name != LOCK_NAME for path in output_dir.iterdir())
    if in_use and not (resume or overwrite):
        raise ValueError(f"`output_dir` {output_dir} is not empty: pass --resume, --overwrite or another folder.")
    saved = Recipe.from_yaml(output_dir) if resume and (output_dir / RECIPE_NAME).is_file() else recipe
    if saved != recipe:
        changed = [name for name, value in recipe.to_dict().items() if value != saved.to_dict()[name]]
        fixed = sorted(set(changed) & {"task", "dataset", "model", "processor", "seed"})
        if fixed:
            raise ValueError(
                f"The run in {output_dir} was started with another recipe ({', '.join(fixed)} differ): resume with "
                "the same recipe and overrides, or choose another folder."
            )
        logger.warning(f"The recipe has changed since the run was started: {', '.join(changed)}.")


def _check_batch_norm(recipe: Recipe, model: nn.Module) -> None:
    if recipe.groups_by_length and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise ValueError(
            "Batch norm does not go with `max_tokens_per_batch`, `sort_within_step` and `group_by_length`: the "
            "statistics of batches of similar lengths are not those of inference. Set "
            "`training.per_device_train_batch_size` in place of the grouping, or, of an SFT model, `model.norm_type` "
            "to 'layer'."
        )


def _claim_folder(output_dir: Path, recipe: Recipe, overwrite: bool) -> None:
    """Make the folder this run's. Called once all is built: data that cannot be read must not cost an earlier run."""
    if overwrite:
        for checkpoint in output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        # An interrupted new run must not leave the old one's weights beside its own recipe.
        for path in (output_dir / LOG_NAME, output_dir / "evaluation.json", *output_dir.glob("*.safetensors")):
            path.unlink(missing_ok=True)
    recipe.save(output_dir)
