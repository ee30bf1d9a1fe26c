"""Models that training starts from in place of random weights."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from .task import id_fields

# What the earlier head was for: a task that leaves these out means their defaults.
OUTPUT_FIELDS = ("problem_type", "target_mean", "target_scale", "num_categories", "category_parts")
SHOWN_NAMES = 3


def pretrained_config(model_class: Any, source: str) -> PreTrainedConfig:
    """Read the configuration of the model to start from.

    Args:
        model_class: class of the model to train.
        source: folder or Hub name.

    Raises:
        ValueError: if there is no such model, or it is of another type.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"`pretrained` {source!r} cannot be loaded: {error}") from error
    wanted = model_class.config_class
    if not isinstance(config, wanted):
        raise ValueError(
            f"`pretrained` {source!r} is of type {config.model_type}: name a model of type {wanted.model_type}."
        )
    return config


def load_pretrained(model_class: Any, source: str, fields: dict[str, Any]) -> PreTrainedModel:
    """Load a model to train on: its backbone, and those weights of its head that have the shapes of the new one.

    Args:
        model_class: class of the model to train.
        source: folder or Hub name of a model with the same backbone, whatever its head.
        fields: fields of the configuration that shall differ from the saved one.

    Returns:
        `PreTrainedModel`: In float32; weights that do not fit the new head are initialised at random.

    Raises:
        ValueError: if there is no such model, or its backbone is another.
    """
    pretrained_config(model_class, source)
    defaults = model_class.config_class()
    fields = {name: getattr(defaults, name) for name in OUTPUT_FIELDS if hasattr(defaults, name)} | fields
    if "num_labels" in fields:
        # Names are only right for the labels that they came with.
        fields |= id_fields([f"LABEL_{number}" for number in range(fields["num_labels"])])
    # In v5 a model takes the dtype of its file; what is trained needs all digits.
    model, report = model_class.from_pretrained(
        source, **fields, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
    )
    backbone = f"{model_class.base_model_prefix}."
    absent = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    differing = sorted(name for name in absent if name.startswith(backbone))
    if differing:
        names = ", ".join(differing[:SHOWN_NAMES]) + (", ..." if len(differing) > SHOWN_NAMES else "")
        raise ValueError(
            f"`pretrained` {source!r} has weights of other shapes than section `model` asks for ({names}): remove "
            "the fields that set sizes."
        )
    return model
