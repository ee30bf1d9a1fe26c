"""Training recipes: what a run trains, on what, and how, as one YAML file."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..attention.backends import ATTENTION_BACKENDS
from ..hub.optional import import_optional
from .writing import replace_text

RECIPE_NAME = "recipe.yaml"

_RESERVED_TRAINING_ARGUMENTS = {
    "output_dir": "pass --output_dir instead",
    "seed": "set the recipe's top-level seed instead",
    "data_seed": "set the recipe's top-level seed instead",
    "resume_from_checkpoint": "pass --resume instead",
    "do_train": "run scripts/train.py instead",
    "do_eval": "run scripts/evaluate.py instead",
    "do_predict": "run scripts/evaluate.py instead",
}

_MAX_VALUES = 10_000


def reject_unknown_names(names: Iterable[str], known: Iterable[str], section: str) -> None:
    """Raise on the first name that is not known, with the closest known one.

    Args:
        names (`Iterable[str]`): Names that a user wrote.
        known (`Iterable[str]`): Names that are accepted.
        section (`str`): Where the names stand, for the message (`"training"`; `""` for the top level).

    Raises:
        ValueError: If a name is unknown.
    """
    known = sorted(known)
    for name in names:
        if name in known:
            continue
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
        remedy = f"did you mean `{close[0]}`?" if close else f"known names: {', '.join(known)}."
        where = f" in section `{section}`" if section else ""
        raise ValueError(f"Unknown recipe name `{name}`{where}: {remedy}")


def _require_number(section: str, name: str, value: Any, minimum: float = 0.0, maximum: float | None = None) -> None:
    in_range = isinstance(value, int | float) and not isinstance(value, bool) and value >= minimum
    if not in_range or (maximum is not None and value > maximum):
        bounds = f"at least {minimum:g}" if maximum is None else f"between {minimum:g} and {maximum:g}"
        raise ValueError(f"`{section}.{name}` must be a number {bounds}, got {value!r}.")


@dataclass
class ImportanceScorerSettings:
    """How the importance scorers (parameters whose name contains `.sampler.`) are optimised.

    Args:
        learning_rate_multiplier (`float`): Factor on the learning rate of the scorers, at every step of the schedule.
        max_grad_norm (`float`, *optional*): Norm to which the gradient of all scorers together is clipped, apart from
            the other parameters. None clips them together with all others.
    """

    learning_rate_multiplier: float = 1.0
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        _require_number("importance_scorer", "learning_rate_multiplier", self.learning_rate_multiplier)
        if self.max_grad_norm is not None:
            _require_number("importance_scorer", "max_grad_norm", self.max_grad_norm)
            if self.max_grad_norm == 0:
                raise ValueError("`importance_scorer.max_grad_norm` must be positive, or null for no own clipping.")


@dataclass
class SamplingNoiseSchedule:
    """Linear annealing of `sampling_noise` from the configuration's value.

    Args:
        final (`float`): Noise at the end of the annealing, and from then on.
        until (`float`): Fraction of all training steps after which `final` is reached, in (0, 1].
    """

    final: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        _require_number("sampling_noise_schedule", "final", self.final)
        _require_number("sampling_noise_schedule", "until", self.until, maximum=1.0)
        if self.until == 0:
            raise ValueError("`sampling_noise_schedule.until` must be positive: a fraction of all training steps.")


@dataclass
class EarlyStopping:
    """Stop when the validation metric has not improved.

    Args:
        patience (`int`): Number of evaluations without improvement after which training stops.
        threshold (`float`): Smallest change that counts as an improvement, in units of the metric.
    """

    patience: int = 5
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.patience, int) or isinstance(self.patience, bool) or self.patience < 1:
            raise ValueError(f"`early_stopping.patience` must be a positive integer, got {self.patience!r}.")
        _require_number("early_stopping", "threshold", self.threshold)


_SECTION_CLASSES: dict[str, Any] = {
    "importance_scorer": ImportanceScorerSettings,
    "sampling_noise_schedule": SamplingNoiseSchedule,
    "early_stopping": EarlyStopping,
}


@dataclass
class Recipe:
    """All settings of one training run.

    Args:
        task (`str`): Name of a registered task, such as `"point-cloud-classification"`.
        dataset (`dict`): `name`, `validation_fraction` (0 for none), `train_fraction` (share of the training rows that
            is used, in (0, 1]) and options of the task's reader.
        model (`dict`): Fields of the task's configuration class.
        processor (`dict`): Arguments of the task's processor.
        augmentation (`dict`): Arguments of the task's augmentation; empty for none.
        training (`dict`): Fields of [`~transformers.TrainingArguments`].
        importance_scorer (`ImportanceScorerSettings`): Learning rate and clipping of the importance scorers.
        sampling_noise_schedule (`SamplingNoiseSchedule`, *optional*): Annealing of the sampling noise.
        early_stopping (`EarlyStopping`, *optional*): When to stop before the last epoch.
        baseline (`str`, *optional*): Model of other authors to train in place of SFT, for comparison; the task knows
            which. `model` then holds its fields.
        pretrained (`str`, *optional*): Folder or Hub name of a model that training starts from: its backbone, and what
            fits of its head; `model` then holds the fields that shall differ.
        attn_implementation (`str`, *optional*): Attention backend to train with; None takes the default.
        max_tokens_per_batch (`int`, *optional*): Limit of the padded tokens (nodes of graphs) of a training batch and
            process, in place of `training.per_device_train_batch_size`; rows of similar length then form a batch.
        sort_within_step (`bool`): Draw the rows of each optimizer step at random and deal them out to its batches by
            length, so that these pad little; needs `training.gradient_accumulation_steps` above 1.
        seed (`int`): Seeds weights, data order, augmentation, sampling and the validation split.

    Raises:
        ValueError: If a name is unknown, or a value is outside its range.
    """

    task: str
    dataset: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    importance_scorer: ImportanceScorerSettings = field(default_factory=ImportanceScorerSettings)
    sampling_noise_schedule: SamplingNoiseSchedule | None = None
    early_stopping: EarlyStopping | None = None
    baseline: str | None = None
    pretrained: str | None = None
    attn_implementation: str | None = None
    max_tokens_per_batch: int | None = None
    sort_within_step: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        from .tasks import get_task

        for section in ("dataset", "model", "processor", "augmentation", "training"):
            if not isinstance(getattr(self, section), dict):
                raise ValueError(f"Section `{section}` must be a mapping, got {getattr(self, section)!r}.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must be an integer from 0 to 2**32 - 1, got {self.seed!r}.")
        if not isinstance(self.dataset.get("name"), str):
            raise ValueError("`dataset.name` is missing: name the data set to train on.")
        _require_number("dataset", "validation_fraction", self.validation_fraction, maximum=0.9)
        _require_number("dataset", "train_fraction", self.train_fraction, maximum=1.0)
        if self.train_fraction == 0:
            raise ValueError("`dataset.train_fraction` must be positive: the share of the training rows to train on.")
        if self.baseline is not None and self.attn_implementation is not None:
            raise ValueError("`attn_implementation` does not go with `baseline`: remove it.")
        if self.attn_implementation is not None and self.attn_implementation not in ATTENTION_BACKENDS:
            names = ", ".join(ATTENTION_BACKENDS)
            raise ValueError(f"`attn_implementation` is {self.attn_implementation!r}: use null or one of {names}.")
        self._validate_batches()
        self._validate_training_arguments()
        get_task(self.task).validate(self)
        if self.early_stopping is not None and self.validation_fraction == 0:
            raise ValueError("`early_stopping` needs validation data: set `dataset.validation_fraction` above 0.")

    def _validate_batches(self) -> None:
        if not isinstance(self.sort_within_step, bool):
            raise ValueError(f"`sort_within_step` must be true or false, got {self.sort_within_step!r}.")
        if self.sort_within_step:
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
        limit = self.max_tokens_per_batch
        if limit is None:
            return
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"`max_tokens_per_batch` must be a positive integer or null, got {limit!r}.")
        for name in ("per_device_train_batch_size", "train_sampling_strategy"):
            if name in self.training:
                raise ValueError(f"`training.{name}` does not go with `max_tokens_per_batch`: remove one of them.")

    @property
    def validation_fraction(self) -> float:
        """Fraction of the training data that is held out for validation."""
        return self.dataset.get("validation_fraction", 0.1)

    @property
    def train_fraction(self) -> float:
        """Share of the training data, without what is held out for validation, that is trained on."""
        return self.dataset.get("train_fraction", 1.0)

    @property
    def groups_by_length(self) -> bool:
        """Whether training batches hold rows of similar length."""
        strategy = self.training.get("train_sampling_strategy")
        return self.max_tokens_per_batch is not None or self.sort_within_step or strategy == "group_by_length"

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Recipe:
        """Build a recipe from nested mappings.

        Args:
            settings (`Mapping[str, Any]`): One entry per field, sections as mappings; a section that is None is left
                at its default.

        Raises:
            ValueError: If a name is unknown, or a value is outside its range.
        """
        if not isinstance(settings, Mapping):
            raise ValueError(f"A recipe is a mapping of sections, got {type(settings).__name__}.")
        reject_unknown_names(settings, [f.name for f in dataclasses.fields(cls)], "")
        arguments: dict[str, Any] = {}
        for name, value in settings.items():
            if value is None:
                continue
            section_class = _SECTION_CLASSES.get(name)
            if section_class is not None and not isinstance(value, section_class):
                if not isinstance(value, Mapping):
                    raise ValueError(f"Section `{name}` must be a mapping, got {value!r}.")
                reject_unknown_names(value, [f.name for f in dataclasses.fields(section_class)], name)
                value = section_class(**value)
            arguments[name] = dict(value) if isinstance(value, Mapping) else value
        for required in ("task", "dataset"):
            if required not in arguments:
                raise ValueError(f"The recipe has no `{required}`.")
        return cls(**arguments)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe file and apply overrides.

        Args:
            path (`str` or `Path`): A YAML file, or a folder that contains `recipe.yaml`.
            overrides (`Sequence[str]`): Dotted assignments such as `"model.hidden_size=64"`, values in YAML.

        Raises:
            ValueError: If the file is missing or no YAML, a name is unknown, or a value is outside its range.
        """
        path = Path(path)
        if path.is_dir():
            path = path / RECIPE_NAME
        if not path.is_file():
            raise ValueError(f"There is no recipe at `{path}`.")
        settings = parse_yaml(path.read_text(encoding="utf-8"), str(path))
        if not isinstance(settings, dict):
            raise ValueError(f"`{path}` must hold a mapping of sections, got {type(settings).__name__}.")
        for override in overrides:
            _apply_override(settings, override)
        return cls.from_dict(settings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries, from which [`Recipe.from_dict`] builds an equal recipe."""
        return dataclasses.asdict(self)

    def save(self, folder: str | Path) -> None:
        """Write `recipe.yaml` into a folder, which is created if absent."""
        yaml = import_optional("yaml", "train")
        path = Path(folder) / RECIPE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))

    def _validate_training_arguments(self) -> None:
        known = {f.name: f for f in dataclasses.fields(TrainingArguments) if f.init}
        names = set(known) | {"activation_checkpointing", "activation_checkpointing_kwargs"}
        for name, remedy in _RESERVED_TRAINING_ARGUMENTS.items():
            if name in self.training:
                raise ValueError(f"`training.{name}` cannot stand in a recipe: {remedy}.")
        reject_unknown_names(self.training, names, "training")
        for name, value in self.training.items():
            default = known[name].default if name in known else None
            is_numeric_field = isinstance(default, int | float) and not isinstance(default, bool)
            if is_numeric_field and not isinstance(value, int | float):
                raise ValueError(f"`training.{name}` must be a number, got {value!r}.")


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML, with 1e-3 as a number and no as a word (as in YAML 1.2), and repeated keys as an error.

    Args:
        text (`str`): The YAML.
        source (`str`): Where it comes from, for messages.

    Raises:
        ValueError: If it is not valid, repeats a key, or holds too many values.
    """
    yaml: Any = import_optional("yaml", "train")

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    def mapping_without_repeats(loader: Any, node: Any) -> dict:
        keys = [loader.construct_object(key) for key, _ in node.value]
        repeated = {str(key) for key in keys if keys.count(key) > 1}
        if repeated:
            raise ValueError(f"`{source}` sets {', '.join(sorted(repeated))} twice in one section.")
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping_without_repeats)
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), list("tTfF"))
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
    )
    try:
        content = yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader subclass
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"`{source}` is not valid YAML: {error}") from error
    # Repeated aliases let a short text stand for more values than memory holds.
    pending, count = [content], 0
    while pending:
        value, count = pending.pop(), count + 1
        if count > _MAX_VALUES:
            raise ValueError(f"`{source}` holds more than {_MAX_VALUES} values: write it without aliases.")
        if isinstance(value, dict | list):
            pending.extend(value.values() if isinstance(value, dict) else value)
    return content


def _apply_override(settings: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    path = name.strip().split(".")
    if not separator or not all(path):
        raise ValueError(f"Override `{override}` must look like `section.name=value`, such as `model.hidden_size=64`.")
    target = settings
    for part in path[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise ValueError(f"Override `{override}`: `{part}` is a value, not a section.")
    target[path[-1]] = parse_yaml(text, override)
