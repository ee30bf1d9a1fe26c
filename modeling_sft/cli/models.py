"""Saved models for the commands that read one."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer


def saved_class(folder: Path) -> tuple[Any, Any]:
    """Configuration and class of the model in a folder.

    Raises:
        ValueError: no saved model, or one of other classes.
    """
    import modeling_sft

    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no saved model (config.json) in `{folder}`.")
    config: Any = AutoConfig.from_pretrained(folder)
    name = (config.architectures or [""])[0]
    model_class = getattr(modeling_sft, name, None) if name.startswith("SFT") else None
    if model_class is None:
        raise ValueError(f"`{folder}` holds a {name or config.model_type}, which is no model of this package.")
    return config, model_class


def num_parameters(model_class: Any, config: Any) -> int:
    """How many parameters a model of a class and configuration has; none is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model_class(config).parameters())


def load_pipeline(pipeline_class: Any, model_class: Any, folder: Path, device: str | None) -> Any:
    """A pipeline of a class for the model in a folder, with its processor or, for sequences, its tokenizer.

    Raises:
        ValueError: a device that cannot be used, or a model without a processor or tokenizer.
        OSError: weights that cannot be read.
    """
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"`device` is {device!r}, which cannot be used here: {error}") from error
    model = model_class.from_pretrained(folder)
    if model.config.modality == "sequence":
        if not (folder / "tokenizer.json").is_file():
            raise ValueError(f"`{folder}` has no tokenizer: only models of texts are supported here.")
        return pipeline_class(model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device=device)
    has_processor = (folder / "preprocessor_config.json").is_file()
    processor = AutoFeatureExtractor.from_pretrained(folder) if has_processor else None
    return pipeline_class(model=model, feature_extractor=processor, device=device)
