"""`sft info`: what a saved model is, and how it did."""

import argparse
import json
from pathlib import Path
from typing import Any

from .arguments import add_folder, add_json
from .printing import aligned, print_result

SUMMARY = "say what a saved model is"
DESCRIPTION = (
    "Say what the model in a folder is: its class, kind of input, parameters, K and labels; and how it did, where it "
    "has been evaluated (evaluation.json). Its weights are not loaded."
)
EPILOG = """examples:
  sft info runs/meshes
  sft info runs/meshes --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_folder(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what the model is."""
    print_result(describe_folder(arguments.folder), format_folder, arguments.json)
    return 0


def describe_folder(folder: Path) -> dict[str, Any]:
    """Class, kind of input, parameters, K, labels and evaluation of a saved model, without loading its weights.

    Raises:
        ValueError: no saved model, one of other classes, or an evaluation that cannot be read.
    """
    from .models import num_parameters, saved_class

    config, model_class = saved_class(folder)
    evaluation = None
    path = folder / "evaluation.json"
    if path.is_file():
        try:
            evaluation = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`{path}` is damaged ({error}): evaluate the model again.") from error
        if not isinstance(evaluation, dict) or not evaluation.get("results"):
            raise ValueError(f"`{path}` has no results: evaluate the model again.")
    has_labels = any(part in model_class.__name__ for part in ("Classification", "Segmentation"))
    return {
        "folder": str(folder),
        "class": model_class.__name__,
        "modality": config.modality,
        "num_parameters": num_parameters(model_class, config),
        "num_sampled_tokens": config.num_sampled_tokens,
        "num_sampled_tokens_range": config.num_sampled_tokens_range,
        "problem_type": config.problem_type,
        "labels": [config.id2label[index] for index in sorted(config.id2label)] if has_labels else [],
        "evaluation": evaluation,
    }


def format_folder(result: dict[str, Any]) -> str:
    """The text of `describe_folder`."""
    k, bounds = result["num_sampled_tokens"], result["num_sampled_tokens_range"]
    entries = {
        "class": result["class"],
        "input": result["modality"].replace("_", " "),
        "parameters": f"{result['num_parameters']:,}",
        "K": f"{k}" if bounds is None else f"{k} (trained with {bounds[0]} to {bounds[1]})",
    }
    if result["labels"]:
        entries["labels"] = f"{len(result['labels'])}: {', '.join(result['labels'])}"
    text = f"{result['folder']}\n{aligned(entries)}"
    if result["evaluation"] is None:
        return text
    from ..training import format_report

    return f"{text}\n\n{format_report(result['evaluation'])}"
