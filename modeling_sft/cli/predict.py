"""`sft predict`: classify files."""

import argparse
from collections import Counter
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
    """Print what the model answers: `{"input": path, text or SMILES, "answer": what the pipeline gives}` each."""
    from transformers import TextClassificationPipeline
    from transformers.pipelines import PIPELINE_REGISTRY

    from ..hub.values import require_integer
    from .inputs import answers, read_inputs
    from .models import load_pipeline, saved_class

    require_integer("`batch_size`", arguments.batch_size, 1)
    require_integer("`top_k`", arguments.top_k, 1)
    config, model_class = saved_class(arguments.folder)
    head = next((head for head in TASK_OF_HEAD if model_class.__name__.endswith(head)), None)
    if head is None:
        name = model_class.__name__
        raise ValueError(f"`{arguments.folder}` holds a {name}, which labels nothing: use a classifier.")
    inputs = read_inputs(config.modality, arguments.files, arguments.column)
    options: dict[str, Any] = {}
    if head.endswith(("CloudClassification", "GraphClassification", "SequenceClassification")):
        options["top_k"] = arguments.top_k
    # A folder that a pipeline saved is not asked for its class: it would want its own code to be trusted.
    if config.modality == "sequence":
        pipeline_class: Any = TextClassificationPipeline
        options["truncation"] = True
    else:
        pipeline_class = PIPELINE_REGISTRY.supported_tasks[TASK_OF_HEAD[head]]["impl"]
    pipeline = load_pipeline(pipeline_class, model_class, arguments.folder, arguments.device)
    found = answers(pipeline, inputs, arguments.batch_size, **options)
    result = [{"input": entry.value, "answer": answer} for entry, answer in zip(inputs, found, strict=True)]
    print_result(result, format_predictions, arguments.json)
    return 0


def format_predictions(result: list[dict[str, Any]]) -> str:
    """The text of the answers: one line per input, labels with scores or, of points and nodes, with counts."""
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
