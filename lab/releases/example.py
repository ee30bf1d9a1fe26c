"""An input and its logits, stored with a release so that any copy of the model can be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from modeling_sft.publishing.example import example_inputs
from modeling_sft.training.writing import replace_text

EXAMPLE_NAME = "example.json"


def write_example(path: Path, model: Any, processor: Any) -> None:
    """Store an example input of a model and its logits."""
    inputs = example_inputs(model, processor)
    with torch.no_grad():
        logits = model(**inputs).logits
    content = {"inputs": {name: value.tolist() for name, value in inputs.items()}, "logits": logits.tolist()}
    replace_text(path, json.dumps(content) + "\n")


def check_example(path: str | Path, model: Any, tolerance: float = 1e-4) -> None:
    """Check that a model gives the stored logits for the stored input.

    Args:
        path: file that [`write_example`] wrote.
        model: the model, in evaluation mode.
        tolerance: the largest allowed difference of a logit, relative to the largest logit (but at least to 1).

    Raises:
        ValueError: if the logits differ.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    inputs = {name: torch.tensor(value, device=model.device) for name, value in content["inputs"].items()}
    expected = torch.tensor(content["logits"])
    with torch.no_grad():
        logits = model(**inputs).logits.float().cpu()
    difference = (logits - expected).abs().max().item() if logits.shape == expected.shape else float("inf")
    if not difference <= tolerance * max(1.0, expected.abs().max().item()):
        raise ValueError(
            f"The model gives other logits for the example in {Path(path).name} than it did when it was released "
            f"(largest difference {difference:.2g}): weights or code have changed."
        )
