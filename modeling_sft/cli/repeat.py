"""`sft repeat`: train and evaluate a recipe for several seeds or folds."""

import argparse
from pathlib import Path

from .arguments import add_data_dir, add_recipe

SUMMARY = "train and evaluate a recipe for several seeds or folds"
DESCRIPTION = (
    "Train a recipe once for each value of a setting, evaluate each model on the test split, and print all results "
    "with mean and standard deviation; they are also written to summary.json. Each run has its own folder, as "
    "`sft train` writes it."
)
EPILOG = """examples:
  sft repeat configuration/digits/sft.yaml --over seed=0,1,2
  sft repeat configuration/nci1/sft.yaml --over dataset.fold=0,1,2,3,4,5,6,7,8,9 --data_dir data
  sft repeat configuration/nci1/sft.yaml --over dataset.fold=0,1,2 --data_dir data --resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_recipe(parser)
    parser.add_argument(
        "--over", required=True, metavar="NAME=V1,V2,...", help="what differs from run to run: seed=0,1,2"
    )
    parser.add_argument(
        "--output_dir", type=Path, help="folder to write (default: runs/RECIPE-NAME, as --over names it)"
    )
    add_data_dir(parser)
    parser.add_argument(
        "--resume", action="store_true", help="keep finished runs, and continue one that was interrupted"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train and evaluate each run, and print the summary."""
    from ..training import format_summary, repeat
    from ..training.recipe_files import recipe_name

    setting, _, values = arguments.over.partition("=")
    if not setting or not values:
        raise ValueError(f"`--over` must be NAME=V1,V2,..., such as seed=0,1,2; got {arguments.over!r}.")
    path = Path(arguments.recipe)
    name = f"{recipe_name(path)}-{setting.rpartition('.')[2]}s"
    output_dir = arguments.output_dir or Path("runs") / name
    summary = repeat(
        path, setting, values.split(","), output_dir, arguments.data_dir, arguments.overrides, arguments.resume
    )
    print(format_summary(summary))
    print(f"written to {output_dir / 'summary.json'}")
    return 0
