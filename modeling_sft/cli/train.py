"""`sft train`: train a model as a recipe says."""

import argparse
from pathlib import Path

from .arguments import add_data_dir, add_recipe

SUMMARY = "train a model as a recipe says"
DESCRIPTION = (
    "Train a model as a recipe says, select the best checkpoint on validation data, and save the model, its "
    "processor, the recipe, a log (training_log.json) and curves (curves.png). The test split is not touched. Runs in "
    "several processes under `accelerate launch`."
)
EPILOG = """examples:
  sft train configuration/digits/sft.yaml --output_dir runs/digits
  sft train configuration/digits/sft.yaml --output_dir runs/wide model.hidden_size=128 seed=1
  sft train configuration/digits/sft.yaml --output_dir runs/digits --resume
  sft train configuration/shrec16/invariant.yaml --data_dir data training.report_to=tensorboard
  accelerate launch --multi_gpu --num_processes 2 -m modeling_sft train configuration/digits/sft.yaml
      (several processes; on a machine without GPU they share its cores)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_recipe(parser)
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="folder to write (default: runs/DATASET for DATASET/sft.yaml, runs/DATASET-PEER for DATASET/PEER.yaml)",
    )
    add_data_dir(parser)
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run from its last whole checkpoint"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run in the output folder first")


def run(arguments: argparse.Namespace) -> int:
    """Train, and print where the model lies and how it did on the validation data."""
    from accelerate import PartialState

    from ..training import load_recipe, train
    from ..training.recipe_files import recipe_name

    recipe_path = Path(arguments.recipe)
    recipe = load_recipe(recipe_path, arguments.overrides)
    output_dir = arguments.output_dir or Path("runs") / recipe_name(recipe_path)
    log = train(recipe, output_dir, arguments.data_dir, resume=arguments.resume, overwrite=arguments.overwrite)
    if PartialState().is_main_process:
        size = "no parameters" if log["num_parameters"] is None else f"{log['num_parameters']:,} parameters"
        print(f"{size}, trained in {log['training_seconds'] or 0:.0f} s")
        for name, value in log["validation"].items():
            print(f"validation {name}: {value:.4f}")
        print(f"saved in {output_dir}")
    return 0
