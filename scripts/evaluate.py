"""Evaluate a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/evaluate.py runs/digits --rotations none
  python scripts/evaluate.py runs/shrec16-invariant --data_dir data --sampled_passes 5
  python scripts/evaluate.py runs/shrec16-invariant --data_dir data --num_sampled_tokens 128 --output k128.json
  accelerate launch --multi_gpu --num_processes 2 scripts/evaluate.py runs/digits
      (several processes; on a machine without GPU they share its cores)
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Evaluate a trained model on a whole split, as-is and rotated; print a table and write "
        "evaluation.json into the model's folder. Runs in several processes under `accelerate launch`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that scripts/train.py wrote")
    parser.add_argument("--data_dir", type=Path, help="folder that contains the data sets, where a data set needs one")
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
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: FOLDER/evaluation.json")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    from accelerate import PartialState
    from transformers.utils import logging

    import lab  # noqa: F401 (benchmark data sets and baselines by name)
    from modeling_sft.hub.folder_errors import FOLDER_ERRORS, error_line
    from modeling_sft.training import evaluate, format_report

    logging.disable_progress_bar()  # of loading and saving; training keeps its own
    try:
        report = evaluate(**vars(arguments))
    except FOLDER_ERRORS as error:
        print(error_line(error), file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(format_report(report))
        print(f"written to {arguments.output or arguments.folder / 'evaluation.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
