"""Files of recipes: reading YAML, a recipe's base, overrides, and the name under which results are kept."""

import re
from pathlib import Path
from typing import Any

from ..hub.optional import import_optional

RECIPE_NAME = "recipe.yaml"
"""The file beside a trained model."""

_MAX_VALUES = 10_000
_STUDIES_FOLDER = "ablations"


def recipe_name(path: str | Path) -> str:
    """Name of a recipe, under which its runs and results are kept.

    `DATASET/sft.yaml` is called DATASET and `DATASET/peer.yaml` DATASET-peer; `recipe.yaml` beside a model has its
    folder's name.

    Args:
        path: the recipe file, or the folder that contains `recipe.yaml`.
    """
    path = Path(path)
    folder = (path if path.is_dir() else path.parent).resolve().name
    return folder if path.is_dir() or path.name in ("sft.yaml", RECIPE_NAME) else f"{folder}-{path.stem}"


def recipe_paths(configuration: str | Path) -> dict[str, Path]:
    """The recipes of a folder of configurations, `DATASET/MODEL.yaml`, by name; studies of ablations are left out."""
    paths = [path for path in Path(configuration).glob("*/*.yaml") if path.parent.name != _STUDIES_FOLDER]
    return {recipe_name(path): path for path in sorted(paths)}


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings of a recipe file, with those of the file that its `base` names where it sets none.

    Sections are merged by name, and null takes a setting of the base away.

    Args:
        path: the recipe file.

    Raises:
        ValueError: if one of the two files cannot be read, is no YAML or no mapping, or if the base has a base.
    """
    settings = _read_mapping(path)
    base = settings.pop("base", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise ValueError(f"`base` of `{path}` is {base!r}: use the path of a recipe file, relative to this one.")
    base_path = path.parent / base
    if not base_path.is_file():
        raise ValueError(f"`base` of `{path}` names `{base_path}`, and there is no such file: name a recipe file.")
    base_settings = _read_mapping(base_path)
    further = base_settings.pop("base", None)
    if further is not None:
        raise ValueError(
            f"`{base_path}`, the `base` of `{path}`, has the `base` {further!r} itself: name a file without one."
        )
    return _merge(
        base_settings,
        {
            name: _merge(base_settings[name], value)
            if isinstance(value, dict) and isinstance(base_settings.get(name), dict)
            else value
            for name, value in settings.items()
        },
    )


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    removed = {name for name, value in own.items() if value is None and name in base}
    return {name: value for name, value in (base | own).items() if name not in removed}


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` cannot be read: {error}.") from error
    settings = parse_yaml(text, str(path))
    if not isinstance(settings, dict):
        raise ValueError(f"`{path}` must hold a mapping of sections, got {type(settings).__name__}.")
    return settings


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML, with 1e-3 as a number and no as a word (as in YAML 1.2), and repeated keys as an error.

    Args:
        text: the YAML.
        source: where it comes from, for messages.

    Raises:
        ValueError: if it is not valid, repeats a key, or holds too many values.
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


def apply_override(settings: dict[str, Any], override: str) -> None:
    """Set one setting of nested dictionaries, in place.

    Args:
        settings: settings as [`read_settings`] gives them.
        override: dotted assignment such as `"model.hidden_size=64"`, the value in YAML.

    Raises:
        ValueError: if it is no such assignment, or goes through a setting that is no section.
    """
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
