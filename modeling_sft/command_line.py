"""The command line: list what there is, say what a saved model is, predict with it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, TextClassificationPipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

from .files_lines_sft import entries_of_lines, read_entries
from .folder_errors import FOLDER_ERRORS, error_line
from .presets import PRESETS

EPILOG = """examples:
  python -m modeling_sft list
  python -m modeling_sft info runs/meshes
  python -m modeling_sft predict runs/meshes chair.off table.stl --top_k 1
  python -m modeling_sft predict runs/molecules new.smi --json
  echo "One of the best films I have seen." | python -m modeling_sft predict runs/texts
"""
PREDICT_EPILOG = """files, by the model's kind of input:
  point clouds  one cloud or mesh each: .npy .npz .ply .off .obj .stl .xyz .txt .csv .h5
  sequences     .txt, one text per line; .csv or .tsv with a column of texts
  graphs        .smi or .txt, one SMILES per line; .csv or .tsv with a column of SMILES
Without files, or for "-", texts and SMILES are read from standard input, one per line. Blank lines are skipped.
"""
# What names the column of a table where `--column` does not.
COLUMN_OF_MODALITY = {"sequence": "text", "graph": "smiles"}
# The task of each head that a pipeline answers for.
TASK_OF_HEAD = {
    "ForPointCloudClassification": "point-cloud-classification",
    "ForPointCloudSegmentation": "point-cloud-segmentation",
    "ForGraphClassification": "graph-classification",
    "ForNodeClassification": "node-classification",
    "ForSequenceClassification": "text-classification",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    layout: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m modeling_sft", description=__doc__, epilog=EPILOG, **layout)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="presets, tasks and recipes", description="List what there is.")
    info = commands.add_parser(
        "info", help="what a saved model is", description="Say what the model in a folder is, and how it did."
    )
    predict = commands.add_parser(
        "predict",
        help="classify files",
        description="Answer for files with the model in a folder.",
        epilog=PREDICT_EPILOG,
        **layout,
    )
    for command in (info, predict):
        command.add_argument("folder", type=Path, metavar="FOLDER", help="folder with a saved model")
    predict.add_argument("files", nargs="*", metavar="FILE", help="what to classify; see below")
    predict.add_argument(
        "--top_k", type=int, default=5, metavar="N", help="labels for each input (default: %(default)s)"
    )
    predict.add_argument(
        "--batch_size", type=int, default=8, metavar="N", help="inputs at once (default: %(default)s)"
    )
    predict.add_argument("--device", help="such as cuda or cpu (default: the first accelerator, if any)")
    predict.add_argument("--column", metavar="NAME", help="column of a table (default: text or smiles)")
    for command in (listing, info, predict):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and print its result.

    Args:
        arguments: the words of the command line; those of this process by default.

    Returns:
        The exit code: 0, or 2 after an error, which is printed to standard error.
    """
    options = build_parser().parse_args(arguments)
    logging.disable_progress_bar()  # of loading
    result: Any
    text: Callable[[Any], str]
    try:
        if options.command == "list":
            result, text = describe_package(), format_package
        elif options.command == "info":
            result, text = describe_folder(options.folder), format_folder
        else:
            words = (options.files, options.top_k, options.batch_size, options.device, options.column)
            result, text = predict_files(options.folder, *words), format_predictions
        output = json.dumps(result, indent=2, ensure_ascii=False, default=_as_list) if options.json else text(result)
    except FOLDER_ERRORS as error:
        print(error_line(error), file=sys.stderr)
        return 2
    print(output)
    return 0


def describe_package() -> dict[str, dict[str, Any]]:
    """Presets with the parameters of their backbones, tasks of recipes, and recipes with their tasks, by name.

    Recipes are found in a checkout only.
    """
    import modeling_sft

    from .training import TASKS, Recipe, get_task
    from .training.recipe_files import recipe_paths

    presets = {}
    for name, entry in PRESETS.items():
        config = entry.factory()
        num_parameters = _num_parameters(getattr(modeling_sft, config.auto_map["AutoModel"].split(".")[-1]), config)
        presets[name] = {"num_parameters": num_parameters, "description": entry.description}
    recipes = {}
    for name, path in recipe_paths(Path(__file__).resolve().parent.parent / "configuration").items():
        comment = re.match(r"#\s*(.*)", path.read_text(encoding="utf-8"))
        recipes[name] = {"task": Recipe.from_yaml(path).task, "description": comment[1] if comment else ""}
    tasks = {name: (type(get_task(name)).__doc__ or "").strip().split("\n")[0] for name in sorted(TASKS)}
    return {
        "presets": presets,
        "tasks": tasks,
        "recipes": recipes,
    }


def format_package(result: dict[str, dict[str, Any]]) -> str:
    """The text of `describe_package`."""
    counts = {name: f"{entry['num_parameters']:,}" for name, entry in result["presets"].items()}
    width = max(map(len, counts.values()))
    parts = {
        "presets, with parameters": {
            name: f"{counts[name].rjust(width)}  {entry['description']}" for name, entry in result["presets"].items()
        },
        "tasks": result["tasks"],
        "recipes": {name: f"[{entry['task']}] {entry['description']}" for name, entry in result["recipes"].items()},
    }
    return "\n\n".join(f"{title}:\n{_aligned(entries)}" for title, entries in parts.items() if entries)


def describe_folder(folder: Path) -> dict[str, Any]:
    """Class, kind of input, parameters, K, labels and evaluation of a saved model, without loading its weights.

    Raises:
        ValueError: no saved model, one of other classes, or an evaluation that cannot be read.
    """
    config, model_class = _saved_class(folder)
    evaluation = None
    path = folder / "evaluation.json"
    if path.is_file():
        try:
            evaluation = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`{path}` is damaged ({error}): evaluate the model again.") from error
        if not isinstance(evaluation, dict) or not evaluation.get("results"):
            raise ValueError(f"`{path}` has no results: evaluate the model again.")
    return {
        "folder": str(folder),
        "class": model_class.__name__,
        "modality": config.modality,
        "num_parameters": _num_parameters(model_class, config),
        "num_sampled_tokens": config.num_sampled_tokens,
        "num_sampled_tokens_range": config.num_sampled_tokens_range,
        "problem_type": config.problem_type,
        "labels": [config.id2label[index] for index in sorted(config.id2label)] if _has_labels(model_class) else [],
        "evaluation": evaluation,
    }


def format_folder(result: dict[str, Any]) -> str:
    """The text of `describe_folder`."""
    from .training import format_report

    k, bounds = result["num_sampled_tokens"], result["num_sampled_tokens_range"]
    entries = {
        "class": result["class"],
        "input": result["modality"].replace("_", " "),
        "parameters": f"{result['num_parameters']:,}",
        "K": f"{k}" if bounds is None else f"{k} (trained with {bounds[0]} to {bounds[1]})",
    }
    if result["labels"]:
        entries["labels"] = f"{len(result['labels'])}: {', '.join(result['labels'])}"
    text = f"{result['folder']}\n{_aligned(entries)}"
    return text if result["evaluation"] is None else f"{text}\n\n{format_report(result['evaluation'])}"


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
        files: see `python -m modeling_sft predict --help`.
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
    for name, value in (("batch_size", batch_size), ("top_k", top_k)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` is {value}: use an integer of at least 1.")
    config, model_class = _saved_class(folder)
    head = next((head for head in TASK_OF_HEAD if model_class.__name__.endswith(head)), None)
    if head is None:
        raise ValueError(f"`{folder}` holds a {model_class.__name__}, which labels nothing: use a classifier.")
    inputs = _read_inputs(config.modality, files, column or COLUMN_OF_MODALITY.get(config.modality, ""))
    if not inputs:
        raise ValueError("There is nothing to classify: name files, or pass lines by standard input.")
    answers = _pipeline(TASK_OF_HEAD[head], model_class, folder, device)(
        inputs,
        batch_size=batch_size,
        **({"top_k": top_k} if head.endswith(("CloudClassification", "GraphClassification")) else {}),
        **({"top_k": top_k, "truncation": True} if config.modality == "sequence" else {}),
    )
    return [{"input": entry, "answer": answer} for entry, answer in zip(inputs, answers, strict=True)]


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


def _saved_class(folder: Path) -> tuple[Any, Any]:
    """Configuration and class of the model in a folder."""
    import modeling_sft

    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no saved model (config.json) in `{folder}`.")
    config: Any = AutoConfig.from_pretrained(folder)
    name = (config.architectures or [""])[0]
    model_class = getattr(modeling_sft, name, None) if name.startswith("SFT") else None
    if model_class is None:
        raise ValueError(f"`{folder}` holds a {name or config.model_type}, which is no model of this package.")
    return config, model_class


def _num_parameters(model_class: Any, config: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model_class(config).parameters())


def _has_labels(model_class: Any) -> bool:
    return any(part in model_class.__name__ for part in ("Classification", "Segmentation"))


def _pipeline(task: str, model_class: Any, folder: Path, device: str | None) -> Any:
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"`device` is {device!r}, which cannot be used here: {error}") from error
    model = model_class.from_pretrained(folder)
    if task == "text-classification":
        if not (folder / "tokenizer.json").is_file():
            raise ValueError(f"`{folder}` has no tokenizer: only models of texts are supported here.")
        return TextClassificationPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device=device)
    has_processor = (folder / "preprocessor_config.json").is_file()
    processor = AutoFeatureExtractor.from_pretrained(folder) if has_processor else None
    # Not by the folder's name: one saved by a pipeline would ask to trust its own copy of the code.
    pipeline_class = PIPELINE_REGISTRY.supported_tasks[task]["impl"]
    return pipeline_class(model=model, feature_extractor=processor, device=device)


def _read_inputs(modality: str, files: Sequence[str], column: str) -> list[str]:
    if modality == "point_cloud":
        absent = [name for name in files if not Path(name).is_file()]
        if absent:
            raise ValueError(f"There is no file `{absent[0]}`.")
        return list(files)
    inputs: list[str] = []
    for name in files or ["-"]:
        inputs += (
            entries_of_lines(sys.stdin, first_word=modality == "graph") if name == "-" else read_entries(name, column)
        )
    return inputs


def _aligned(entries: dict[str, Any]) -> str:
    width = max(map(len, entries))
    return "\n".join(f"  {name.ljust(width)}  {value}".rstrip() for name, value in entries.items())


def _as_list(value: Any) -> Any:
    return value.tolist()
