"""Train a model as a recipe says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/train.py configuration/digits/sft.yaml --output_dir runs/digits
  python scripts/train.py configuration/digits/sft.yaml --output_dir runs/wide model.hidden_size=128 seed=1
  python scripts/train.py configuration/digits/sft.yaml --output_dir runs/digits --resume
  python scripts/train.py configuration/shrec16/invariant.yaml --data_dir data training.report_to=tensorboard
  accelerate launch --multi_gpu --num_processes 2 scripts/train.py configuration/digits/sft.yaml
      (several processes; on a machine without GPU they share its cores)
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a model as a recipe says, select the best checkpoint on validation data, and save the "
        "model, its processor, the recipe, a log (training_log.json) and curves (curves.png). The test split is not "
        "touched. Runs in several processes under `accelerate launch`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="recipe file, such as configuration/digits/sft.yaml")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.name=value",
        help="settings that replace those of the recipe: model.hidden_size=64 training.num_train_epochs=3 seed=1 "
        "(values in YAML; null removes an optional section)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="folder to write (default: runs/DATASET for DATASET/sft.yaml, runs/DATASET-PEER for DATASET/PEER.yaml)",
    )
    parser.add_argument("--data_dir", type=Path, help="folder that contains the data sets, where a data set needs one")
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run from its last whole checkpoint"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run in the output folder first")
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse_arguments()
    from accelerate import PartialState
    from transformers.utils import logging

    from modeling_sft.folder_errors import error_line
    from modeling_sft.training import load_recipe, train
    from modeling_sft.training.recipe_files import recipe_name

    logging.disable_progress_bar()  # of loading and saving; training keeps its own
    try:
        recipe_path = Path(arguments.recipe)
        recipe = load_recipe(recipe_path, arguments.overrides)
        output_dir = arguments.output_dir or Path("runs") / recipe_name(recipe_path)
        log = train(recipe, output_dir, arguments.data_dir, resume=arguments.resume, overwrite=arguments.overwrite)
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error), file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(f"{log['num_parameters']:,} parameters, trained in {log['training_seconds'] or 0:.0f} s")
        for name, value in log["validation"].items():
            print(f"validation {name}: {value:.4f}")
        print(f"saved in {output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
