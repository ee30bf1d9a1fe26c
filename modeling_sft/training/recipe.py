"""Training recipes: what a run trains, on what, and how, as one YAML file."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from transformers import TrainingArguments

from ..attention.backends import ATTENTION_BACKENDS
from ..hub.optional import import_optional
from .recipe_files import RECIPE_NAME, apply_override, read_settings
from .writing import replace_text

try:
    from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator
except ImportError as error:
    raise ImportError('Recipes need `pydantic`: pip install "modeling-sft[train]"') from error

_RESERVED_TRAINING_ARGUMENTS = {
    "output_dir": "pass --output_dir instead",
    "seed": "set the recipe's top-level seed instead",
    "data_seed": "set the recipe's top-level seed instead",
    "resume_from_checkpoint": "pass --resume instead",
    "do_train": "run scripts/train.py instead",
    "do_eval": "run scripts/evaluate.py instead",
    "do_predict": "run scripts/evaluate.py instead",
}

_EXPECTED = {
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "string_type": "a name",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
}
"""What to write in place of a value, by the type that pydantic gives an error."""

# A number stays a number, and true is none.
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict()]


def reject_unknown_names(names: Iterable[str], known: Iterable[str], section: str) -> None:
    """Raise on the first name that is not known, with the closest known one.

    Args:
        names: names that a user wrote.
        known: names that are accepted.
        section: where the names stand, for the message (`"training"`; `""` for the top level).

    Raises:
        ValueError: if a name is unknown.
    """
    known = sorted(known)
    for name in names:
        if name in known:
            continue
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
        remedy = f"did you mean `{close[0]}`?" if close else f"known names: {', '.join(known)}."
        where = f" in section `{section}`" if section else ""
        raise ValueError(f"Unknown recipe name `{name}`{where}: {remedy}")


class Section(BaseModel):
    """Settings of which every one is checked: a wrong one is a `ValueError` of one line, with place and remedy.

    Class attributes:
        place: where the settings stand in a recipe, for messages (`"early_stopping"`; `""` for the top level).
    """

    model_config = ConfigDict(extra="forbid")
    place: ClassVar[str] = ""

    def __init__(self, /, **settings: Any) -> None:
        if self.model_config["extra"] == "forbid":
            reject_unknown_names(settings, type(self).model_fields, self.place)
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ValueError(self._explain(error)) from None

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        """The first thing that pydantic found wrong, in one line."""
        first = error.errors(include_url=False)[0]
        if first["type"] == "value_error":
            return str(first["ctx"]["error"])
        place = ".".join([cls.place, *map(str, first["loc"])]).strip(".")
        if first["type"] == "missing":
            return f"`{place}` is missing: add it to the recipe."
        expected = _EXPECTED.get(first["type"], "another value").format(**first.get("ctx", {}))
        or_null = ", or null" if cls.model_fields[str(first["loc"][0])].default is None else ""
        return f"`{place}` is {reprlib.repr(first['input'])}: use {expected}{or_null}."


class ImportanceScorerSettings(Section):
    """How the importance scorers (parameters whose name contains `.sampler.`) are optimised.

    Args:
        learning_rate_multiplier: factor on the learning rate of the scorers, at every step of the schedule.
        max_grad_norm: norm to which the gradient of all scorers together is clipped, apart from the other parameters.
            None clips them together with all others.
    """

    place = "importance_scorer"
    learning_rate_multiplier: Annotated[Number, Field(ge=0)] = 1.0
    max_grad_norm: Annotated[Number, Field(gt=0)] | None = None


class ContextHashSettings(Section):
    """How the tables of context hashes are optimised: each of their rows is seen in few steps.

    Args:
        learning_rate_multiplier: factor on the learning rate of the tables, at every step of the schedule.
        adam_beta2: Adam's decay of squared gradients for the tables, in place of `training.adam_beta2`. Near 1, rows
            that are rarely seen move too far; .9 forgets sooner. None leaves it.
        weight_decay: of the tables, in place of `training.weight_decay`. None leaves it.
    """

    place = "context_hashes"
    learning_rate_multiplier: Annotated[Number, Field(ge=0)] = 1.0
    adam_beta2: Annotated[Number, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[Number, Field(ge=0)] | None = None


class SamplingNoiseSchedule(Section):
    """Linear annealing of `sampling_noise` from the configuration's value.

    Args:
        final: noise at the end of the annealing, and from then on.
        until: fraction of all training steps after which `final` is reached, in (0, 1].
    """

    place = "sampling_noise_schedule"
    final: Annotated[Number, Field(ge=0)] = 0.0
    until: Annotated[Number, Field(gt=0, le=1)] = 1.0


class EarlyStopping(Section):
    """Stop when the validation metric has not improved.

    Args:
        patience: number of evaluations without improvement after which training stops.
        threshold: smallest change that counts as an improvement, in units of the metric.
    """

    place = "early_stopping"
    patience: Annotated[Integer, Field(ge=1)] = 5
    threshold: Annotated[Number, Field(ge=0)] = 0.0


class DatasetSettings(Section):
    """What the `dataset` section of every task holds; beside it stand options of the data set's reader.

    Args:
        name: the data set.
        validation_fraction: fraction of the training data that is held out for validation; 0 for none.
        train_fraction: share of the training data, without what is held out, that is trained on.
    """

    model_config = ConfigDict(extra="allow")
    place = "dataset"
    name: str
    validation_fraction: Annotated[Number, Field(ge=0, le=0.9)] = 0.1
    train_fraction: Annotated[Number, Field(gt=0, le=1)] = 1.0


class Recipe(Section):
    """All settings of one training run.

    A recipe checks itself; [`check_recipe`] asks its task too.

    Args:
        task: name of a registered task, such as `"point-cloud-classification"`.
        dataset: `name`, `validation_fraction` (0 for none), `train_fraction` (share of the training rows that is used,
            in (0, 1]) and options of the task's reader.
        model: fields of the task's configuration class.
        processor: arguments of the task's processor.
        augmentation: arguments of the task's augmentation; empty for none.
        training: fields of [`~transformers.TrainingArguments`].
        importance_scorer: learning rate and clipping of the importance scorers.
        context_hashes: how the tables of context hashes are optimised, of models that have them.
        sampling_noise_schedule: annealing of the sampling noise.
        early_stopping: when to stop before the last epoch.
        baseline: model of other authors to train in place of SFT, for comparison; the task knows which. `model` then
            holds its fields.
        pretrained: folder or Hub name of a model that training starts from: its backbone, and what fits of its head;
            `model` then holds the fields that shall differ.
        attn_implementation: attention backend to train with; None takes the default.
        max_tokens_per_batch: limit of the padded tokens (nodes of graphs) of a training batch and process, in place of
            `training.per_device_train_batch_size`; rows of similar length then form a batch.
        sort_within_step: draw the rows of each optimizer step at random and deal them out to its batches by length, so
            that these pad little; needs `training.gradient_accumulation_steps` above 1.
        seed: seeds weights, data order, augmentation, sampling and the validation split.

    Raises:
        ValueError: if a name is unknown, or a value is outside its range.
    """

    task: str
    dataset: dict[str, Any]
    model: dict[str, Any] = {}
    processor: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}
    training: dict[str, Any] = {}
    importance_scorer: ImportanceScorerSettings = ImportanceScorerSettings()
    context_hashes: ContextHashSettings = ContextHashSettings()
    sampling_noise_schedule: SamplingNoiseSchedule | None = None
    early_stopping: EarlyStopping | None = None
    baseline: str | None = None
    pretrained: str | None = None
    attn_implementation: str | None = None
    max_tokens_per_batch: Annotated[Integer, Field(ge=1)] | None = None
    sort_within_step: Annotated[bool, Strict()] = False
    seed: Annotated[Integer, Field(ge=0, lt=2**32)] = 0

    @field_validator("dataset")
    @classmethod
    def _check_dataset(cls, dataset: dict[str, Any]) -> dict[str, Any]:
        DatasetSettings(**dataset)
        return dataset

    @field_validator("training")
    @classmethod
    def _check_training_arguments(cls, training: dict[str, Any]) -> dict[str, Any]:
        known = {f.name: f for f in dataclasses.fields(TrainingArguments) if f.init}
        for name, remedy in _RESERVED_TRAINING_ARGUMENTS.items():
            if name in training:
                raise ValueError(f"`training.{name}` cannot stand in a recipe: {remedy}.")
        names = set(known) | {"activation_checkpointing", "activation_checkpointing_kwargs"}
        reject_unknown_names(training, names, "training")
        for name, value in training.items():
            default = known[name].default if name in known else None
            is_numeric_field = isinstance(default, int | float) and not isinstance(default, bool)
            if is_numeric_field and type(value) not in (int, float):
                raise ValueError(f"`training.{name}` is {reprlib.repr(value)}: use {_EXPECTED['float_type']}.")
        return training

    @field_validator("attn_implementation")
    @classmethod
    def _check_attention_backend(cls, attn_implementation: str | None) -> str | None:
        if attn_implementation is not None and attn_implementation not in ATTENTION_BACKENDS:
            names = ", ".join(ATTENTION_BACKENDS)
            raise ValueError(f"`attn_implementation` is {attn_implementation!r}: use null or one of {names}.")
        return attn_implementation

    @model_validator(mode="after")
    def _check_combinations(self) -> Recipe:
        if self.baseline is not None and self.attn_implementation is not None:
            raise ValueError("`attn_implementation` does not go with `baseline`: remove it.")
        if self.early_stopping is not None and self.validation_fraction == 0:
            raise ValueError("`early_stopping` needs validation data: set `dataset.validation_fraction` above 0.")
        if self.sort_within_step:
            self._check_sorted_steps()
        if self.max_tokens_per_batch is not None:
            for name in ("per_device_train_batch_size", "train_sampling_strategy"):
                if name in self.training:
                    raise ValueError(f"`training.{name}` does not go with `max_tokens_per_batch`: remove one of them.")
        return self

    def _check_sorted_steps(self) -> None:
        if self.max_tokens_per_batch is not None or "train_sampling_strategy" in self.training:
            raise ValueError(
                "`sort_within_step` does not go with `max_tokens_per_batch` or `training.train_sampling_strategy`:"
                " choose one."
            )
        if self.training.get("gradient_accumulation_steps", 1) < 2:
            raise ValueError(
                "`sort_within_step` needs several batches in a step: set `training.gradient_accumulation_steps` "
                "above 1, or `sort_within_step` to false."
            )

    @property
    def validation_fraction(self) -> float:
        """Fraction of the training data that is held out for validation."""
        return DatasetSettings(**self.dataset).validation_fraction

    @property
    def train_fraction(self) -> float:
        """Share of the training data, without what is held out for validation, that is trained on."""
        return DatasetSettings(**self.dataset).train_fraction

    @property
    def groups_by_length(self) -> bool:
        """Whether training batches hold rows of similar length."""
        strategy = self.training.get("train_sampling_strategy")
        return self.max_tokens_per_batch is not None or self.sort_within_step or strategy == "group_by_length"

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Recipe:
        """Build a recipe from nested mappings.

        Args:
            settings: one entry per field, sections as mappings; a section that is None is left at its default.

        Raises:
            ValueError: if a name is unknown, or a value is outside its range.
        """
        if not isinstance(settings, Mapping):
            raise ValueError(f"A recipe is a mapping of sections, got {type(settings).__name__}.")
        reject_unknown_names(settings, cls.model_fields, "")
        arguments: dict[str, Any] = {
            name: {str(key): entry for key, entry in value.items()} if isinstance(value, Mapping) else value
            for name, value in settings.items()
            if value is not None
        }
        return cls(**arguments)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe file, with the settings of its `base` if it names one, and apply overrides.

        Args:
            path: A YAML file, or a folder that contains `recipe.yaml`.
            overrides: dotted assignments such as `"model.hidden_size=64"`, values in YAML.

        Raises:
            ValueError: if the file or its base is missing or no YAML, a name is unknown, or a value is outside its
                range.
        """
        path = Path(path)
        if path.is_dir():
            path = path / RECIPE_NAME
        if not path.is_file():
            raise ValueError(f"There is no recipe at `{path}`.")
        settings = read_settings(path)
        for override in overrides:
            apply_override(settings, override)
        return cls.from_dict(settings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries, from which [`Recipe.from_dict`] builds an equal recipe."""
        return self.model_dump()

    def save(self, folder: str | Path) -> None:
        """Write `recipe.yaml` into a folder, which is created if absent."""
        yaml = import_optional("yaml", "train")
        path = Path(folder) / RECIPE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))
