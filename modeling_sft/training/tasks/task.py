"""What a recipe's `task` stands for: model, data, processor, metrics. One class per task, registered by name."""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel

from ...data.metrics import classification_metrics
from ...data.registry import ReaderEntry
from ...data.splits import train_validation_split
from ..estimators import Estimator
from ..recipe import Recipe, reject_unknown_names

TASKS: dict[str, Task] = {}
COMMON_DATASET_NAMES = ("name", "validation_fraction", "train_fraction")
"""Names in a recipe's `dataset` section that every task and data set takes."""


class Task(ABC):
    """One kind of training: subclass it, and decorate the subclass with [`register_task`].

    Class attributes:
        name: what a recipe's `task` says.
        readers: data sets that can be named.
        load_dataset: function that reads one, given its name, the data folder and options.
        model_class, processor_class: classes of the model that is trained and of its processor.
        augmentation_class: a dataclass of augmentation settings, or None for a task without augmentation.
        main_metric: the metric of [`Task.compute_metrics`] by which the best checkpoint is selected.
        greater_is_better: direction of the main metric.
        rotations: rotations under which the task can be evaluated; `"none"` leaves data as it is.
        names_from_data: fields of the configuration that the data set decides.
        plain_metrics: metrics that are no fractions, and are not printed in percent.
        baselines: models of other authors that a recipe's `baseline` can name, with the model's interface, and
            classical methods; [`register_baseline`] adds to them.
    """

    name: ClassVar[str]
    readers: ClassVar[Mapping[str, ReaderEntry]]
    load_dataset: ClassVar[Callable[..., Any]]
    model_class: ClassVar[Any]
    processor_class: ClassVar[Any]
    augmentation_class: ClassVar[Any | None] = None
    main_metric: ClassVar[str]
    greater_is_better: ClassVar[bool] = True
    rotations: ClassVar[tuple[str, ...]] = ("none",)
    names_from_data: ClassVar[tuple[str, ...]] = ("num_labels", "id2label", "label2id")
    plain_metrics: ClassVar[tuple[str, ...]] = ()
    baselines: Mapping[str, Any] = {}

    def validate(self, recipe: Recipe) -> None:
        """Raise a ValueError if a recipe's dataset, model, processor or augmentation section does not fit the task."""
        reject_unknown_names(recipe.dataset, {*COMMON_DATASET_NAMES, *self.dataset_options(recipe)}, "dataset")
        for name in self.names_from_data:
            if name in recipe.model:
                raise ValueError(f"`model.{name}` cannot stand in a recipe: the data set decides it; remove it.")
        if recipe.baseline is not None and recipe.baseline not in self.baselines:
            known = ", ".join(self.baselines) or "none"
            raise ValueError(
                f"Task `{self.name}` has no baseline {recipe.baseline!r}; it has {known}. Baselines belong to a "
                "clone of the repository: use its scripts/train.py."
            )
        config_class = self.model_class_of(recipe).config_class
        config_fields = {f.name for f in dataclasses.fields(config_class) if f.init}
        reject_unknown_names(recipe.model, config_fields, "model")
        reject_unknown_names(recipe.processor, _argument_names(self.processor_class), "processor")
        if self.augmentation_class is not None:
            reject_unknown_names(recipe.augmentation, _argument_names(self.augmentation_class), "augmentation")
        elif recipe.augmentation:
            raise ValueError(f"Task `{self.name}` has no augmentation: remove the section `augmentation`.")
        try:
            config_class(**recipe.model)
        except (StrictDataclassError, TypeError) as error:
            raise ValueError(f"Section `model`: {error}") from error
        if recipe.pretrained is not None and recipe.baseline is not None:
            raise ValueError("`pretrained` does not go with `baseline`: remove one of them.")
        self.check_processor(recipe)
        self.build_augmentation(recipe)
        self.build_estimator(recipe)

    def model_class_of(self, recipe: Recipe) -> Any:
        """Class of the model that a recipe trains."""
        return self.model_class if recipe.baseline is None else self.baselines[recipe.baseline]

    def build_estimator(self, recipe: Recipe) -> Estimator | None:
        """Build the classical method that the recipe asks for; None where it asks for a model."""
        model_class = self.model_class_of(recipe)
        return model_class(recipe) if issubclass(model_class, Estimator) else None

    def build_processor(self, recipe: Recipe) -> Any:
        """Build the processor that the recipe asks for."""
        return self.processor_class(**recipe.processor)

    def check_processor(self, recipe: Recipe) -> None:
        """Raise a ValueError if the recipe's processor cannot be built."""
        self.build_processor(recipe)

    def fit_processor(self, recipe: Recipe, data_dir: str | Path | None) -> Any:
        """Build the processor of a new model; one that learns from the training data reads no other split."""
        return self.build_processor(recipe)

    def load_processor(self, folder: str | Path) -> Any:
        """Load the processor of a saved model."""
        return self.processor_class.from_pretrained(folder)

    def build_augmentation(self, recipe: Recipe) -> Any | None:
        """Build the augmentation that the recipe asks for, None for none."""
        if self.augmentation_class is None or not recipe.augmentation:
            return None
        return self.augmentation_class(**recipe.augmentation)

    def dataset_options(self, recipe: Recipe) -> tuple[str, ...]:
        """Names that the recipe's `dataset` section accepts beside `COMMON_DATASET_NAMES`."""
        return self.reader_options(recipe)

    def reader_options(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the options of the data set's reader; none for an unknown data set."""
        entry = self.readers.get(recipe.dataset["name"])
        return () if entry is None else entry.options

    def reader_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Those options that the recipe sets."""
        return {name: recipe.dataset[name] for name in self.reader_options(recipe) if name in recipe.dataset}

    def rotate(self, rows: Any, rotation: str, seed: int) -> Any:
        """Return the rows, each under a random rotation of the given kind that is a function of seed and row index."""
        raise ValueError(f"Task `{self.name}` has no rotation `{rotation}`.")

    def label_names(self, config: PreTrainedConfig) -> list[str] | None:
        """Names of the model inputs that [`Task.compute_metrics`] needs as labels; None for `labels` alone."""
        return None

    def preprocess_logits(self, config: PreTrainedConfig) -> Callable[[Any, Any], Any] | None:
        """Return a function of logits and labels whose result is kept in place of the logits; None keeps them."""
        return None

    def count_changed_predictions(self, reference: np.ndarray, predictions: np.ndarray) -> int:
        """Count the rows whose predicted class differs between two rotations, given logits with classes last."""
        return int((reference.argmax(-1) != predictions.argmax(-1)).sum())

    def output_fields(self, rows: Any) -> dict[str, Any]:
        """Fields of the configuration that the labels decide; none by default."""
        return {}

    @abstractmethod
    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        """Raise a ValueError if the labels of the rows are not those that a model was trained for."""

    def load_rows(self, recipe: Recipe, data_dir: str | Path | None, split: str) -> Any:
        """Read one split (`"train"`, `"validation"` or `"test"`)."""
        splits = self.load_dataset(recipe.dataset["name"], data_dir, **self.reader_arguments(recipe))
        return rows_of_split(splits, recipe, split)

    @abstractmethod
    def build_model(self, recipe: Recipe, rows: Any, processor: Any) -> PreTrainedModel:
        """Build a model for the processor, with the label names of the rows, at random or from `pretrained`."""

    @abstractmethod
    def prepare(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        """Turn rows into a map-style data set of model inputs."""

    def prepare_training(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        """[`Task.prepare`] for the training split; an iterable data set is possible."""
        return self.prepare(rows, processor, seed, augmentation)

    @abstractmethod
    def build_collator(self, processor: Any, config: PreTrainedConfig) -> Callable[[list[dict]], dict]:
        """Build the function that makes a batch of prepared items."""

    @abstractmethod
    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        """Compute the metrics of a whole split."""


class ClassificationTask(Task):
    """One class for every row: accuracy, of two classes also F1 and area under ROC."""

    column: ClassVar[str]
    """The column of the class."""
    other_tasks: ClassVar[str]
    """What to train on rows without classes, for messages."""
    main_metric = "accuracy"

    def output_fields(self, rows: Any) -> dict[str, Any]:
        """The names of the classes, as fields of the configuration."""
        names = getattr(rows.features.get(self.column), "names", None)
        if names is None:
            raise ValueError(f"`dataset` has no classes in its column `{self.column}`: train {self.other_tasks}.")
        if len(names) < 2:
            raise ValueError(f"`dataset` has {len(names)} class ({', '.join(names)}): give at least two.")
        return label_names_of(rows, self.column)

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        check_label_names(config, rows.features[self.column].names)

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        logits = np.asarray(evaluation.predictions)
        return classification_metrics(logits, np.asarray(evaluation.label_ids), logits.shape[-1])


def register_task(task_class: type[Task]) -> type[Task]:
    """Class decorator that makes a task available to recipes under its `name`."""
    TASKS[task_class.name] = task_class()
    return task_class


def register_baseline(name: str, model_class: type[PreTrainedModel] | type[Estimator], *task_names: str) -> None:
    """Make a model of other authors, or a classical method, available to the recipes of some tasks, under a name.

    Args:
        name: what a recipe's `baseline` says.
        model_class: the model, with the interface of the tasks' own, or the method.
        task_names: names of the tasks.
    """
    for task_name in task_names:
        task = get_task(task_name)
        task.baselines = {**task.baselines, name: model_class}


def get_task(name: str) -> Task:
    """Return the task registered under a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in TASKS:
        raise ValueError(f"Unknown task `{name}`; known tasks: {', '.join(sorted(TASKS))}.")
    return TASKS[name]


def check_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe once its task has accepted it.

    Args:
        recipe: what to check.

    Raises:
        ValueError: if there is no such task, or a section does not fit it.
    """
    get_task(recipe.task).validate(recipe)
    return recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply overrides, and check the recipe by itself and with its task.

    Args:
        path: A YAML file, or a folder that contains `recipe.yaml`.
        overrides: dotted assignments such as `"model.hidden_size=64"`, values in YAML.

    Raises:
        ValueError: if the file is missing or no YAML, a name is unknown, a value is outside its range, or a section
            does not fit the task.
    """
    return check_recipe(Recipe.from_yaml(path, overrides))


def task_of_config(config: PreTrainedConfig) -> Task:
    """Return the task of a saved model, by the architecture that its configuration names.

    Raises:
        ValueError: if no task trains that architecture.
    """
    for task in TASKS.values():
        if task.model_class.__name__ in (config.architectures or ()):
            return task
    raise ValueError(f"No task trains {config.architectures}; known tasks: {', '.join(sorted(TASKS))}.")


def label_names_of(rows: Any, column: str) -> dict[str, Any]:
    """The configuration's `id2label` and `label2id` for a column of class labels or of lists of them."""
    feature = rows.features[column]
    return id_fields(getattr(feature, "feature", feature).names)


def id_fields(names: Sequence[str]) -> dict[str, Any]:
    """The configuration's `id2label` and `label2id` for labels in this order."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def check_label_names(config: PreTrainedConfig, names: list[str]) -> None:
    """Raise a ValueError if a data set's label names are not those that a model was trained for."""
    trained = [name for _, name in sorted((config.id2label or {}).items())]
    if names != trained:
        raise ValueError(f"`dataset` has the labels {names}, the model was trained for {trained}.")


def rows_of_split(splits: Any, recipe: Recipe, split: str) -> Any:
    """One split of a data set; the validation split is held out of the training data where there is no official one.

    Of the training split the recipe's `train_fraction` is kept, drawn like a validation split.

    Raises:
        ValueError: if the data set lacks the split, or has too few rows for the fractions.
    """
    if split == "test":
        if "test" not in splits:
            raise ValueError(f"`dataset.name` {recipe.dataset['name']} has no test split.")
        return splits["test"]
    holds_out = recipe.validation_fraction > 0
    if split == "validation" and not holds_out:
        return None
    if split == "validation" and "validation" in splits:
        return splits["validation"]
    train = splits["train"]
    if holds_out and "validation" not in splits:
        train, validation = train_validation_split(train, recipe.validation_fraction, recipe.seed)
        if split == "validation":
            return validation
    if recipe.train_fraction < 1:
        train = train_validation_split(train, recipe.train_fraction, recipe.seed)[1]
    return train


def _argument_names(callable_class: type) -> set[str]:
    parameters = inspect.signature(callable_class).parameters.values()
    return {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
