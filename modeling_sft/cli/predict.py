"""`sft predict`: classify files."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .arguments import FILES_EPILOG, add_files, add_folder, add_json
from .printing import print_result

SUMMARY = "classify files"
DESCRIPTION = (
    "Classify files with the model in a folder, or predict the numbers that it was trained for: one line for each "
    "input, or JSON, on standard output."
)
EPILOG = f"""examples:
  sft predict runs/meshes chair.off table.stl --top_k 1
  sft predict runs/molecules new.smi --json
  echo "One of the best films I have seen." | sft predict runs/texts

{FILES_EPILOG}"""
# The task of each head that a pipeline answers for.
TASK_OF_HEAD = {
    "ForPointCloudClassification": "point-cloud-classification",
    "ForPointCloudSegmentation": "point-cloud-segmentation",
    "ForGraphClassification": "graph-classification",
    "ForNodeClassification": "node-classification",
    "ForSequenceClassification": "text-classification",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_folder(parser)
    add_files(parser)
    parser.add_argument(
        "--top_k", type=int, default=5, metavar="N", help="labels for each input (default: %(default)s)"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what the model answers."""
    options = (arguments.top_k, arguments.batch_size, arguments.device, arguments.column)
    print_result(predict_files(arguments.folder, arguments.files, *options), format_predictions, arguments.json)
    return 0


def predict_files(
    folder: Path,
    files: Sequence[str],
    top_k: int | None = 5,
    batch_size: int = 8,
    device: str | None = None,
    column: str | None = None,
) -> list[dict[str, Any]]:
    """Answer for the inputs in files by the pipeline of the model's task.

    Args:
        folder: with a saved model and its processor or tokenizer.
        files: see `sft predict --help`.
        top_k: labels for each input.
        batch_size: inputs at once.
        device: such as `"cpu"`.
        column: of tables; `text` of texts and `smiles` of graphs by default.

    Returns:
        One `{"input": path, text or SMILES, "answer": what the pipeline gives}` per input.

    Raises:
        ValueError: no model that labels inputs, files that cannot be read or hold nothing, or options out of range.
        OSError: absent files.
    """
    from .inputs import answers, check_counts, read_inputs
    from .models import load_pipeline, saved_class

    check_counts(batch_size=batch_size, top_k=top_k)
    config, model_class = saved_class(folder)
    head = next((head for head in TASK_OF_HEAD if model_class.__name__.endswith(head)), None)
    if head is None:
        raise ValueError(f"`{folder}` holds a {model_class.__name__}, which labels nothing: use a classifier.")
    inputs = read_inputs(config.modality, files, column)
    found = answers(
        load_pipeline(_pipeline_class(TASK_OF_HEAD[head]), model_class, folder, device),
        inputs,
        batch_size,
        **({"top_k": top_k} if head.endswith(("CloudClassification", "GraphClassification")) else {}),
        **({"top_k": top_k, "truncation": True} if config.modality == "sequence" else {}),
    )
    return [{"input": entry.value, "answer": answer} for entry, answer in zip(inputs, found, strict=True)]


def format_predictions(result: list[dict[str, Any]]) -> str:
    """The text of `predict_files`: one line per input, labels with scores or, of points and nodes, with counts."""
    lines = []
    for entry in result:
        answer = entry["answer"]
        if isinstance(answer, list):
            parts = [f"{label['label']} {label['score']:.4g}" for label in answer]
        elif "labels" in answer:
            parts = [f"{label} {count}" for label, count in Counter(answer["labels"]).most_common()]
        else:
            parts = [f"{len(answer['scores'])} rows of scores (--json prints them)"]
        lines.append(f"{entry['input']}\t{', '.join(parts)}")
    return "\n".join(lines)


def _pipeline_class(task: str) -> Any:
    """The class of a task. A folder that a pipeline saved is not asked: it would want its own code to be trusted."""
    from transformers import TextClassificationPipeline
    from transformers.pipelines import PIPELINE_REGISTRY

    if task == "text-classification":
        return TextClassificationPipeline
    return PIPELINE_REGISTRY.supported_tasks[task]["impl"]
