"""Small random models in folders, as the command line reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modeling_sft.presets import preset
from tiny_models import randomise

NAMES = {0: "good", 1: "bad", 2: "ugly"}


def saved(folder: Path, cls: Any, name: str, processor: Any, **changes: Any) -> Any:
    """The model of a class and preset, with the processor beside it unless that is None."""
    torch.manual_seed(0)
    model = randomise(cls(preset(name, **({"id2label": NAMES} | changes)))).eval()
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return model
