"""Study files: which changes of one recipe an ablation compares, and which trainings it needs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modeling_sft.training.recipe import Recipe, reject_unknown_names
from modeling_sft.training.recipe_files import parse_yaml, recipe_name
from modeling_sft.training.tasks import get_task, load_recipe

from .inference import SAMPLERS, read_inference

_STUDY_NAMES = ("recipe", "overrides", "seeds", "inference", "comparisons")
_COMPARISON_NAMES = ("title", "variants", "grid", "inference")
_VARIANT_NAMES = ("overrides", "sampler", "inference")


@dataclass(frozen=True)
class Run:
    """One training: a recipe with its seed, and a sampler in place of the learned one.

    Args:
        label: the label of the first variant in the study that uses it.
        recipe: what to train.
        sampler: name in `SAMPLERS`; None for the learned sampler.
    """

    label: str
    recipe: Recipe
    sampler: str | None = None

    @property
    def key(self) -> str:
        """Short hash of everything that decides the result; a default counts as if it were written in the study."""
        recipe = self.recipe.to_dict()
        config = get_task(self.recipe.task).model_class_of(self.recipe).config_class(**self.recipe.model)
        # Hash the configuration with all defaults filled in; code references and library versions do not count.
        recipe["model"] = {
            name: value for name, value in config.to_dict().items() if name not in ("auto_map", "transformers_version")
        }
        text = json.dumps([_canonical(recipe), self.sampler], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        label = re.sub(r"[^a-z0-9.]+", "-", self.label.lower()).strip("-.") or "variant"
        return f"{label[:60]}-seed{self.recipe.seed}-{self.key}"


@dataclass(frozen=True)
class Variant:
    """What one row of a comparison stands for.

    Args:
        label: its name in tables and plots.
        overrides: dotted assignments beside the study's.
        sampler: name in `SAMPLERS`.
        inference: settings that the trained weights are evaluated under; an empty one leaves the model as trained.
        runs: one per seed.
        is_reference: whether it is the study's recipe without a change.
    """

    label: str
    overrides: tuple[str, ...]
    sampler: str | None
    inference: tuple[dict[str, Any], ...]
    runs: tuple[Run, ...]
    is_reference: bool


@dataclass(frozen=True)
class Comparison:
    """Variants to show side by side."""

    title: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Study:
    """A study file, with all its recipes built and checked.

    Args:
        name: name of the file without its ending.
        recipe_name: name of the recipe.
        overrides: assignments common to all variants.
        seeds: seeds of every variant.
        comparisons: in the order of the file.
        reference: the recipe without a change, with the first seed.
    """

    name: str
    recipe_name: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    comparisons: dict[str, Comparison]
    reference: Recipe = field(repr=False)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Study:
        """Read a study file.

        Args:
            path: A YAML file with `recipe` (path relative to it), `overrides` (assignments common to all variants),
                `seeds`, `inference` and `comparisons`, each with a `title`, its own `inference`, and `variants` (label
                -> overrides, or label -> `overrides`, `sampler`, `inference`) or a `grid` (dotted name -> values, of
                which all products are taken). `inference` maps `sampling_inference` and `num_sampled_tokens` (a K, or
                `"all"`) to values; where several levels set it, the innermost one counts.

        Raises:
            ValueError: if the file is missing or not YAML, a name is unknown, a value or a recipe is not valid, or two
                variants of a comparison have one label.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"There is no study file at `{path}`.")
        content = _mapping(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))
        _known_names(content, _STUDY_NAMES, "the study")
        if not isinstance(content.get("recipe"), str):
            raise ValueError(f"`recipe` is missing in `{path}`: name the recipe file, relative to the study file.")
        recipe_path = path.parent / content["recipe"]
        overrides = _overrides(content.get("overrides"), "the study")
        seeds = content.get("seeds", [0])
        if not isinstance(seeds, list) or not seeds or len({str(seed) for seed in seeds}) < len(seeds):
            raise ValueError(f"`seeds` must be a list of one or more different integers, got {seeds!r}.")

        def build(changes: Sequence[str], seed: Any) -> Recipe:
            return load_recipe(recipe_path, [*overrides, *changes, f"seed={seed}"])

        reference = build((), seeds[0])
        if reference.validation_fraction == 0:
            raise ValueError("An ablation is evaluated on validation data: set `dataset.validation_fraction` above 0.")
        reader = _Reader(build, seeds, Run("reference", reference).key)
        comparisons = {
            str(name): reader.comparison(str(name), settings, content.get("inference"))
            for name, settings in _mapping(content.get("comparisons"), "comparisons").items()
        }
        if not comparisons:
            raise ValueError(f"`comparisons` is empty in `{path}`: name at least one.")
        return cls(path.stem, recipe_name(recipe_path), overrides, tuple(seeds), comparisons, reference)

    def runs(self, only: Sequence[str] = ()) -> dict[str, tuple[Run, list[dict[str, Any]]]]:
        """The trainings that comparisons take: key -> the run and the inference settings to evaluate it under.

        Args:
            only: names of comparisons; all by default.

        Raises:
            ValueError: if there is no such comparison.
        """
        for name in only:
            if name not in self.comparisons:
                raise ValueError(f"There is no comparison `{name}`; there are {', '.join(self.comparisons)}.")
        # A run takes the label of its first use in the whole study, even if only a part of the study is run.
        variants = [variant for comparison in self.comparisons.values() for variant in comparison.variants]
        first = {run.key: run for variant in reversed(variants) for run in reversed(variant.runs)}
        planned: dict[str, tuple[Run, list[dict[str, Any]]]] = {}
        for name in only or self.comparisons:
            for variant in self.comparisons[name].variants:
                for run in variant.runs:
                    settings = planned.setdefault(run.key, (first[run.key], []))[1]
                    settings += [setting for setting in variant.inference if setting not in settings]
        return planned


@dataclass(frozen=True)
class _Reader:
    """Reads the comparisons of a study; it knows how recipes are built, the seeds, and the key of the reference."""

    build: Callable[[Sequence[str], Any], Recipe]
    seeds: Sequence[Any]
    reference_key: str

    def comparison(self, name: str, settings: Any, inference: Any) -> Comparison:
        where = f"comparison `{name}`"
        settings = _mapping(settings, where)
        _known_names(settings, _COMPARISON_NAMES, where)
        if ("variants" in settings) == ("grid" in settings):
            raise ValueError(f"{where} needs either `variants` or `grid`.")
        inference = settings.get("inference", inference)
        if "grid" in settings:
            entries = _grid_variants(_mapping(settings["grid"], f"`grid` of {where}"), where)
        else:
            entries = _mapping(settings["variants"], f"`variants` of {where}")
        if not entries:
            raise ValueError(f"{where} is empty: give at least one variant.")
        variants = tuple(self.variant(str(label), entry, inference, where) for label, entry in entries.items())
        return Comparison(str(settings.get("title", name)), variants)

    def variant(self, label: str, entry: Any, inference: Any, where: str) -> Variant:
        where = f"variant `{label}` of {where}"
        entry = {"overrides": entry} if isinstance(entry, list) else _mapping(entry, where)
        _known_names(entry, _VARIANT_NAMES, where)
        overrides = _overrides(entry.get("overrides"), where)
        sampler = entry.get("sampler")
        if sampler is not None and sampler not in SAMPLERS:
            raise ValueError(
                f"`sampler` of {where} is {sampler!r}: use one of {', '.join(SAMPLERS)}, or leave it out."
            )
        try:
            runs = tuple(Run(label, self.build(overrides, seed), sampler) for seed in self.seeds)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        recipe = runs[0].recipe
        settings = read_inference(entry.get("inference", inference), where)
        if recipe.validation_fraction == 0:
            raise ValueError(f"{where} has no validation data: set `dataset.validation_fraction` above 0.")
        config_class = get_task(recipe.task).model_class_of(recipe).config_class
        if recipe.baseline is not None and (sampler is not None or settings != ({},)):
            raise ValueError(f"{where}: `sampler` and `inference` do not go with a baseline: give `inference: {{}}`.")
        if sampler == "farthest_point" and config_class.modality != "point_cloud":
            raise ValueError(
                f"{where}: `sampler: farthest_point` needs points, and this is `{recipe.task}`: use random."
            )
        return Variant(label, overrides, sampler, settings, runs, runs[0].key == self.reference_key)


def _grid_variants(grid: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    for name, values in grid.items():
        if not isinstance(values, list) or not values or len({str(value) for value in values}) < len(values):
            raise ValueError(
                f"`grid.{name}` of {where} must be a list of one or more different values, got {values!r}."
            )
    variants = {}
    for values in itertools.product(*grid.values()):
        label = ", ".join(
            str(value) if isinstance(value, str) else f"{name.rpartition('.')[2].replace('_', ' ')} {_yaml(value)}"
            for name, value in zip(grid, values, strict=True)
        )
        if label in variants:
            raise ValueError(f"Two variants of the grid of {where} are called `{label}`: name them under `variants`.")
        variants[label] = [f"{name}={_yaml(value)}" for name, value in zip(grid, values, strict=True)]
    return variants if grid else {}


def _yaml(value: Any) -> str:
    """A value as an override writes it: as JSON, which is valid YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def _overrides(value: Any, where: str) -> tuple[str, ...]:
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"`overrides` of {where} must be a list such as [model.hidden_size=64], got {value!r}.")
    for override in value:
        # An override of the seed would train the same seed several times, under the names of different seeds.
        if override.partition("=")[0].strip() == "seed":
            raise ValueError(f"`overrides` of {where} set `seed`: use the study's `seeds`.")
    return tuple(value)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a mapping, got {value!r}.")
    return value


def _known_names(names: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    try:
        reject_unknown_names(names, known, "")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _canonical(value: Any) -> Any:
    """The value with whole floats turned into integers, so that 1 and 1.0 are one setting."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
