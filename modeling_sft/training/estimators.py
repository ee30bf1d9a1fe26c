"""Classical methods that a recipe's `baseline` can name: fitted to whole splits, not trained by steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction, PreTrainedConfig

from .recipe import Recipe

Scores = Callable[[Any], NDArray[Any]]
"""From features of rows to what the task's metrics take: scores of all classes or labels `(n, C)`, or numbers."""

TRAINING_NAMES = ("metric_for_best_model", "disable_tqdm")
"""What the `training` section may say: the metric by which validation chooses, and, without effect, no bars."""
_OF_STEPS = (
    "augmentation",
    "importance_scorer",
    "context_hashes",
    "sampling_noise_schedule",
    "early_stopping",
    "max_tokens_per_batch",
    "sort_within_step",
)


class TrainingData(NamedTuple):
    """What an estimator is fitted to."""

    features: Any
    """Features of the training rows."""
    targets: NDArray[Any]
    """Their targets, `(n,)` int64 classes or `(n, C)` float32, NaN where one is missing."""
    num_labels: int
    """Number of classes, labels or numbers."""
    background: Any
    """Features of all training rows, of which `dataset.train_fraction` gave some their targets."""


class Estimator(ABC):
    """A method of counting, trees and linear models: subclass it, and register it as a baseline like a model.

    What it has learned is not stored, as pickles would be code: a run keeps its recipe and what validation chose, and
    an evaluation fits it again, which takes seconds and gives the same.

    Class attributes:
        config_class: a dataclass of its settings, the recipe's `model`.
        target: column of the rows that it predicts.
        processor_names: what it reads of the recipe's `processor`; other names are refused.

    Args:
        recipe: what to fit; [`Task.validate`] builds the estimator to check it.

    Raises:
        ValueError: if the recipe sets what only a training by steps has, or no validation data to choose by.
    """

    config_class: ClassVar[Any]
    target: ClassVar[str]
    processor_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, recipe: Recipe) -> None:
        defaults = Recipe(task=recipe.task, dataset=recipe.dataset)
        unused = [name for name in _OF_STEPS if getattr(recipe, name) != getattr(defaults, name)]
        unused += [f"training.{name}" for name in recipe.training if name not in TRAINING_NAMES]
        unused += [f"processor.{name}" for name in recipe.processor if name not in self.processor_names]
        if unused:
            raise ValueError(
                f"`{unused[0]}` means nothing to the baseline {recipe.baseline}, which is fitted and not trained by "
                "steps: remove it."
            )
        if recipe.validation_fraction == 0:
            raise ValueError(
                f"The baseline {recipe.baseline} is chosen on validation data: set `dataset.validation_fraction` "
                "above 0."
            )
        self.recipe = recipe
        self.settings = self.config_class(**recipe.model)

    @abstractmethod
    def choices(self) -> Sequence[dict[str, Any]]:
        """Settings among which validation chooses, ready for JSON; of equal ones the first is taken."""

    @abstractmethod
    def features(self, rows: Any) -> Any:
        """Features of rows, each of which is a function of its row and the recipe alone.

        Args:
            rows: rows of the data set, or rotated ones.

        Raises:
            ValueError: if the rows lack what the method reads.
        """

    @abstractmethod
    def fit(self, choice: Mapping[str, Any], data: TrainingData) -> Scores:
        """Fit the method to training rows.

        Args:
            choice: one of [`Estimator.choices`].
            data: the rows.
        """

    def targets(self, rows: Any) -> NDArray[Any]:
        """The targets of rows, in order."""
        if hasattr(rows, "with_format"):
            rows = rows.with_format("numpy", columns=[self.target])
        return np.stack([np.asarray(row[self.target]) for row in rows])


class EstimatorRun:
    """An estimator with its task and the training rows of its recipe, to be fitted with any of its choices.

    Args:
        estimator: the method.
        task: the task of its recipe.
        data_dir: where the data sets lie.

    Raises:
        ValueError: if the data cannot be read, or do not fit the task or the method.
    """

    def __init__(self, estimator: Estimator, task: Any, data_dir: str | Path | None) -> None:
        recipe = estimator.recipe
        rows = task.load_rows(recipe, data_dir, "train")
        self.estimator, self.task = estimator, task
        self.config = PreTrainedConfig(**task.output_fields(rows))
        features = background = estimator.features(rows)
        if recipe.train_fraction < 1:
            every = recipe.model_copy(update={"dataset": recipe.dataset | {"train_fraction": 1.0}})
            background = estimator.features(task.load_rows(every, data_dir, "train"))
        self.data = TrainingData(features, estimator.targets(rows), int(self.config.num_labels or 0), background)

    def fit(self, choice: Mapping[str, Any]) -> Scores:
        """Fit the method to the training rows."""
        return self.estimator.fit(choice, self.data)

    def metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """The task's metrics of a whole split."""
        return dict(self.task.compute_metrics(prediction, self.config))

    def choose(self, rows: Any) -> list[dict[str, Any]]:
        """Fit every choice; returns each `choice` with its metrics on validation rows, `validation`, the best first.

        Raises:
            ValueError: if the recipe's `training.metric_for_best_model` is no metric of the task.
        """
        features, targets = self.estimator.features(rows), self.estimator.targets(rows)
        name = self.estimator.recipe.training.get("metric_for_best_model", self.task.main_metric)
        # Which metrics there are shows on constant scores, before anything is fitted.
        known = self.metrics(EvalPrediction(np.zeros((len(targets), self.data.num_labels)), targets))
        if name not in known:
            raise ValueError(f"`training.metric_for_best_model` is {name!r}: use one of {', '.join(known)}.")
        tried: list[dict[str, Any]] = [
            {"choice": choice, "validation": self.metrics(EvalPrediction(self.fit(choice)(features), targets))}
            for choice in self.estimator.choices()
        ]
        return sorted(tried, key=lambda each: each["validation"][name], reverse=self.task.greater_is_better)
