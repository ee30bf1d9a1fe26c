"""Trainer that counts labels as the losses do, with own settings of importance scorers and context hashes."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from ..data.batch_samplers import SortedStepBatchSampler, TokenBudgetBatchSampler
from ..encoder.context_hashes import context_tables
from ..encoder.losses import present_labels
from ..hub.writing import plain_errors
from ..nn.checks import IGNORED_LABEL
from .checkpoints import check_best_checkpoint
from .recipe import ContextHashSettings, ImportanceScorerSettings

SCORER_NAME_PART = ".sampler."


def is_scorer_parameter(name: str) -> bool:
    """Tell whether a parameter, by its dotted name, belongs to an importance scorer."""
    return SCORER_NAME_PART in f".{name}"


def activation_checkpointing_arguments(arguments: dict[str, Any], known_names: Iterable[str] | None = None) -> dict:
    """Name the activation-checkpointing arguments as the installed Transformers version does.

    Args:
        arguments: fields of TrainingArguments, with `activation_checkpointing` (and `_kwargs`) or the older
            `gradient_checkpointing` (and `_kwargs`).
        known_names: field names of TrainingArguments; those installed by default.

    Returns:
        `dict`: The same arguments under the names that are known, the newer ones if both are.
    """
    if known_names is None:
        known_names = [f.name for f in dataclasses.fields(TrainingArguments)]
    old, new = "gradient_checkpointing", "activation_checkpointing"
    source, target = (old, new) if new in set(known_names) else (new, old)
    return {
        target + name.removeprefix(source) if name in (source, f"{source}_kwargs") else name: value
        for name, value in arguments.items()
    }


def device_arguments() -> dict[str, Any]:
    """Fields of TrainingArguments that depend on the machine.

    Without `use_cpu`, processes launched on a machine without accelerator would not find each other, and each would
    train on its own.
    """
    return {"use_cpu": not torch.accelerator.is_available(), "dataloader_pin_memory": torch.cuda.is_available()}


class SFTTrainer(Trainer):
    """[`~transformers.Trainer`] for models with importance scorers.

    The scorers' parameters (names that contain `.sampler.`) form their own parameter groups, whose learning rate is
    the multiple of the others' at every step of the schedule, and may be clipped apart from all other parameters. So
    do the tables of context hashes. Weight decay leaves out biases, norms, scalars and the relation's projections.

    Args:
        importance_scorer: multiplier and clipping; by default both are off.
        context_hashes: multiplier, decays of squared gradients and of weights; by default those of all parameters.
        max_tokens_per_batch: form training batches by [`TokenBudgetBatchSampler`] from the `lengths` of the training
            data, in place of `per_device_train_batch_size` rows each.
        sort_within_step: form training batches by [`SortedStepBatchSampler`] from the `lengths` of the training data:
            each optimizer step a random set of rows, each of its batches rows of similar length.
        *args, **kwargs: as for [`~transformers.Trainer`].

    Raises:
        ValueError: if a setting contradicts the training arguments or the model.
    """

    def __init__(
        self,
        *args: Any,
        importance_scorer: ImportanceScorerSettings | None = None,
        context_hashes: ContextHashSettings | None = None,
        max_tokens_per_batch: int | None = None,
        sort_within_step: bool = False,
        **kwargs: Any,
    ) -> None:
        self.importance_scorer = importance_scorer or ImportanceScorerSettings()
        self.context_hashes = context_hashes or ContextHashSettings()
        self.max_tokens_per_batch = max_tokens_per_batch
        self.sort_within_step = sort_within_step
        self._scorer_grad_norm: torch.Tensor | None = None
        super().__init__(*args, **kwargs)
        if self.importance_scorer.max_grad_norm is not None and not self.args.max_grad_norm > 0:
            raise ValueError(
                "`importance_scorer.max_grad_norm` needs `training.max_grad_norm` > 0: use a large value to leave the "
                "other parameters unclipped."
            )
        of_model: Any = self.model
        if self.context_hashes != ContextHashSettings() and not context_tables(of_model):
            raise ValueError("`context_hashes` sets how tables are optimised, and the model has none: remove it.")
        problem_type = getattr(self.model.config, "problem_type", None)
        if self.args.label_smoothing_factor > 0 and problem_type not in (None, "single_label_classification"):
            raise ValueError(f"`training.label_smoothing_factor` must be 0 for the problem type {problem_type}.")

    def get_train_dataloader(self) -> DataLoader:
        """Trainer's, or one whose batches are limited by their padded tokens or sorted within each step."""
        data: Any = self.train_dataset
        if self.max_tokens_per_batch is None and not self.sort_within_step:
            return super().get_train_dataloader()
        if not hasattr(data, "lengths"):
            raise ValueError(
                "`max_tokens_per_batch` and `sort_within_step` need training data with `lengths`: leave them out here."
            )
        # Of all processes the same: the accelerator deals batches out to them.
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler: Any
        if self.max_tokens_per_batch is not None:
            sampler = TokenBudgetBatchSampler(data.lengths, self.max_tokens_per_batch, seed=seed)
        else:
            batches = self.args.gradient_accumulation_steps * self.args.world_size
            sampler = SortedStepBatchSampler(data.lengths, self.args.per_device_train_batch_size, batches, seed=seed)
        loader = DataLoader(
            data,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        """The batches of a step, and the number of their labels that are present; Trainer's number counts NaN too."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        # Trainer counts classes as the losses do.
        if count is None or not batches[0]["labels"].is_floating_point():
            return batches, count
        found = sum(self._count_labels(batch["labels"]) for batch in batches)
        assert isinstance(found, torch.Tensor)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            found = self.accelerator.gather(found.to(device)[None]).sum(0)
        present, counted = found.clamp(min=1).to(device)
        return batches, count * present / counted

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Trainer's, each batch being weighted by its labels that are present (see [`share_of_step`])."""
        labels = inputs.get("labels")
        if num_items_in_batch is not None and labels is not None and labels.is_floating_point():
            # The model weights a batch by all its labels: of these, so many stand for one that is present.
            present, counted = self._count_labels(labels).clamp(min=1)
            num_items_in_batch = num_items_in_batch * counted / present
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _count_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """The number of labels that are present, and of those that Trainer counts."""
        config: Any = getattr(self.model, "config", None)
        present = present_labels(labels, config)
        counts = torch.stack([present.sum(), (labels != IGNORED_LABEL).sum()])
        # Quotients of whole numbers would be float32; Apple's GPUs have nothing finer.
        return counts.to(torch.float32 if counts.device.type == "mps" else torch.float64)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters with weight decay: Trainer's, less scalars, vectors and relation projections."""
        num_dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
        return [
            name
            for name in super().get_decay_parameter_names(model)
            if num_dimensions.get(name, 0) > 1 and ".relation." not in f".{name}"
        ]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, and split the parameters of scorers and of tables off each of its groups."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if not is_new:
            return optimizer
        of_model: Any = self.model if model is None else model
        if self.importance_scorer.learning_rate_multiplier != 1:
            scorer = {parameter for name, parameter in of_model.named_parameters() if is_scorer_parameter(name)}
            _split_off(optimizer, scorer, self.importance_scorer.learning_rate_multiplier)
        if self.context_hashes != ContextHashSettings():
            _split_off(
                optimizer,
                set(context_tables(of_model)),
                self.context_hashes.learning_rate_multiplier,
                self.context_hashes.adam_beta2,
                self.context_hashes.weight_decay,
            )
        return optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the scorers' gradient and that of all other parameters, each to its own norm; return the latter's."""
        max_scorer_norm = self.importance_scorer.max_grad_norm
        if max_scorer_norm is None:
            return super()._clip_grad_norm(model)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "`importance_scorer.max_grad_norm` is not available with FSDP or DeepSpeed, which clip all parameters "
                "at once: set it to null."
            )
        scorer: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            (scorer if is_scorer_parameter(name) else others).append(parameter)
        grad_norm = self.accelerator.clip_grad_norm_(others, self.args.max_grad_norm)
        # torch's function: the accelerator's has unscaled all fp16 gradients above, and refuses to do so twice.
        self._scorer_grad_norm = torch.nn.utils.clip_grad_norm_(scorer, max_scorer_norm) if scorer else None
        return grad_norm

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; a disk without space for it is said in one line."""
        with plain_errors(self.args.output_dir or "."):
            super()._save_checkpoint(*args, **kwargs)

    def _load_best_model(self) -> None:
        """Load the best checkpoint at the end of training; Trainer would go on without it."""
        # FSDP and DeepSpeed read files of their own, and fail without them.
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            check_best_checkpoint(self.state.best_model_checkpoint or "")
        super()._load_best_model()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, with the scorers' gradient norm before clipping beside that of the others."""
        if "grad_norm" in logs and self._scorer_grad_norm is not None:
            logs["scorer_grad_norm"] = self._scorer_grad_norm.item()
        super().log(logs, start_time)


def _split_off(
    optimizer: torch.optim.Optimizer,
    own: set[torch.Tensor],
    learning_rate_multiplier: float,
    adam_beta2: float | None = None,
    weight_decay: float | None = None,
) -> None:
    """Give some parameters groups of their own; `None` leaves a setting as it is."""
    groups = []
    for group in optimizer.param_groups:
        changed = {"lr": group["lr"] * learning_rate_multiplier}
        if adam_beta2 is not None:
            if "betas" not in group:
                raise ValueError("`context_hashes.adam_beta2` is for Adam: set it to null for this `training.optim`.")
            changed["betas"] = (group["betas"][0], adam_beta2)
        if weight_decay is not None:
            changed["weight_decay"] = weight_decay
        groups.append({**group, "params": [p for p in group["params"] if p not in own]})
        groups.append({**group, **changed, "params": [p for p in group["params"] if p in own]})
    # The first group must not be empty: Trainer logs its learning rate as that of the model.
    optimizer.param_groups[:] = [group for group in groups if group["params"]]
