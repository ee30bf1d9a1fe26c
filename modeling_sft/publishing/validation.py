"""What a folder must hold before it is published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..encoder.pretrained import SFTPreTrainedModel
from ..hub.folder_errors import FOLDER_ERRORS
from ..training.recipe import Recipe
from ..training.run import LOG_NAME
from ..training.tasks import Task, get_task
from ..training.tasks.task import load_recipe
from .example import example_inputs
from .reports import read_json, read_reports
from .sections import CARD_SECTIONS, read_sections

_PICKLED_WEIGHTS = ("pytorch_model*.bin", "model*.pt", "model*.pth")


@dataclass(frozen=True)
class CheckedFolder:
    """A folder whose model, processor and results were found whole.

    Args:
        path: the folder.
        model_class, processor_class: classes of the model, and of its processor or tokenizer.
        config: the model's configuration.
        num_parameters: number of its parameters.
        task: what the model was trained for.
        recipe: how.
        log: content of `training_log.json`.
        reports: content of the evaluation files, by name.
        sections: content of the files of further parts of the card, by name; see [`CardSection`].
    """

    path: Path
    model_class: type[SFTPreTrainedModel]
    processor_class: type
    config: Any
    num_parameters: int
    task: Task
    recipe: Recipe
    log: dict[str, Any]
    reports: dict[str, dict[str, Any]]
    sections: dict[str, dict[str, Any]]


def check_folder(folder: str | Path) -> CheckedFolder:
    """Check that a folder of `scripts/train.py` can be published. Touches no network.

    The weights must be safetensors that fill the model exactly, with finite values; the processor must load, and one
    forward pass give finite outputs; recipe, training log and evaluation must be there and belong together.

    Args:
        folder: the folder to publish.

    Raises:
        ValueError: if something is missing, damaged or does not fit; the message says what to do.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise ValueError(f"There is no saved model (config.json) in `folder` {path}.")
    recipe = load_recipe(path)
    if recipe.baseline is not None:
        raise ValueError(f"The model in `folder` is the baseline {recipe.baseline}: only SFT models are published.")
    log = read_json(path / LOG_NAME, ("command", "date", "hardware", "versions"), "scripts/train.py")
    reports = read_reports(path)
    task = get_task(recipe.task)
    _check_weights_files(path)
    model = _load_strictly(path, task.model_class_of(recipe))
    processor = _load_processor(path, task)
    _check_forward_pass(model, processor)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    sections = read_sections(path)
    for name, content in {**reports, **sections}.items():
        script = CARD_SECTIONS[name].script if name in sections else "scripts/evaluate.py"
        for what, expected in (("num_parameters", num_parameters), ("task", recipe.task)):
            if content.get(what, expected) != expected:
                raise ValueError(
                    f"{name} belongs to another model: its {what} is {content[what]}, this one's {expected}. "
                    f"Run {script} again."
                )
    return CheckedFolder(
        path, type(model), type(processor), model.config, num_parameters, task, recipe, log, reports, sections
    )


def _check_weights_files(folder: Path) -> None:
    """Raise a ValueError unless the weights of a folder are whole safetensors, and nothing else."""
    pickled = sorted(path.name for pattern in _PICKLED_WEIGHTS for path in folder.glob(pattern))
    if pickled:
        raise ValueError(f"{', '.join(pickled)}: weights must be safetensors; save the model again, delete the file.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ValueError(f"There are no weights (model.safetensors) in `folder` {folder}.")
    for path in weights:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    if not torch.isfinite(file.get_tensor(name)).all():
                        raise ValueError(f"{path.name}: `{name}` has values that are not finite.")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path.name} is truncated or damaged ({error}): save the model again.") from error


def _load_strictly(folder: Path, model_class: Any) -> Any:
    try:
        model, info = model_class.from_pretrained(folder, output_loading_info=True)
    except FOLDER_ERRORS as error:
        raise ValueError(f"The model in `folder` does not load: {error}") from error
    if type(model).__name__ not in (model.config.architectures or []):
        raise ValueError(f"config.json says {model.config.architectures}, the recipe trains {type(model).__name__}.")
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            names = ", ".join(sorted(map(str, info[kind]))[:3])
            raise ValueError(f"The weights do not fit the model ({kind.replace('_', ' ')}: {names}): save it again.")
    return model.eval()


def _load_processor(folder: Path, task: Task) -> Any:
    try:
        return task.load_processor(folder)
    except FOLDER_ERRORS as error:
        raise ValueError(f"The processor in `folder` does not load: {error}") from error


def _check_forward_pass(model: Any, processor: Any) -> None:
    try:
        with torch.no_grad():
            outputs = model(**example_inputs(model, processor))
    except FOLDER_ERRORS as error:
        raise ValueError(f"Model and processor in `folder` do not go together: {error}") from error
    for name, value in outputs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"The model gives `{name}` that are not finite for an example input.")
