"""`sft evaluate`: evaluate a trained model."""

import argparse
from pathlib import Path

from .arguments import add_data_dir

SUMMARY = "evaluate a trained model"
DESCRIPTION = (
    "Evaluate a trained model on a whole split, as-is and rotated, and print a table. Nothing is written, unless "
    "--save or --output says where to. Runs in several processes under `accelerate launch`."
)
EPILOG = """examples:
  sft evaluate model_cards/sft-digits --rotations none
  sft evaluate runs/digits --save
      (before the model is published)
  sft evaluate runs/shrec16-invariant --data_dir data --sampled_passes 5
  sft evaluate runs/shrec16-invariant --data_dir data --num_sampled_tokens 128 --output k128.json
  accelerate launch --multi_gpu --num_processes 2 -m modeling_sft evaluate runs/digits
      (several processes; on a machine without GPU they share its cores)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that `sft train` wrote")
    add_data_dir(parser)
    parser.add_argument("--dataset", metavar="NAME", help="data set (default: that of the recipe in FOLDER)")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="default: %(default)s")
    parser.add_argument(
        "--rotations",
        nargs="+",
        metavar="ROTATION",
        help="none, z (about the z axis), so3 (any); default: all that the task knows",
    )
    parser.add_argument("--num_sampled_tokens", type=int, metavar="K", help="K in place of the trained one")
    parser.add_argument(
        "--sampled_passes",
        type=int,
        default=0,
        metavar="N",
        help="also report mean and deviation of N passes that sample as in training (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of rotations and sampled passes (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="items per process (default: %(default)s)")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--output", type=Path, metavar="FILE", help="write the report to a file, as JSON")
    written.add_argument(
        "--save",
        action="store_true",
        help="write the report to FOLDER/evaluation.json, in place of an earlier one: `sft info` shows it, and "
        "`sft publish` publishes it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and print the table."""
    from accelerate import PartialState

    from ..training import evaluate, format_report
    from ..training.evaluation import EVALUATION_NAME

    options = dict(vars(arguments))
    if options.pop("save"):
        options["output"] = arguments.folder / EVALUATION_NAME
    report = evaluate(**options)
    if PartialState().is_main_process:
        print(format_report(report))
        if options["output"] is not None:
            print(f"written to {options['output']}")
    return 0
