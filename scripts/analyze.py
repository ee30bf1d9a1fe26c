"""Analyze a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Spelled out, so that --help need not import PyTorch.
SECTIONS = ("sampled_tokens", "robustness", "calibration", "throughput", "failures")

EPILOG = """examples:
  python scripts/analyze.py runs/digits
  python scripts/analyze.py runs/imdb-bytes --data_dir data --max_examples 2000 --only robustness calibration
  python scripts/analyze.py runs/modelnet40 --data_dir data --only throughput --batch_size 64 --output_dir runs/speed
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Analyze a trained model on a split: its metrics against the number of sampled tokens and under "
        "corruptions of the data, its calibration, its speed, and where it fails. Prints tables, and writes "
        "analysis.json, analysis.png and failures.png into the model's folder, in place of those of an earlier run; "
        "scripts/publish.py puts them into the model card.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that scripts/train.py wrote")
    parser.add_argument("--data_dir", type=Path, help="folder that contains the data sets, where a data set needs one")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="default: %(default)s")
    parser.add_argument("--max_examples", type=int, metavar="N", help="draw N examples of the split (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of corruptions and drawn examples (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="items per batch (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)"
    )
    parser.add_argument("--output_dir", type=Path, help="folder to write (default: FOLDER)")
    return parser.parse_args()


def write_analysis(arguments: argparse.Namespace) -> None:
    from lab.analysis import analyze, format_analysis

    print(format_analysis(analyze(**vars(arguments))))
    print(f"written to {arguments.output_dir or arguments.folder}: analysis.json and figures")


def main() -> int:
    arguments = parse_arguments()
    from transformers.utils import logging

    from modeling_sft.hub.folder_errors import exit_code

    logging.disable_progress_bar()  # of loading and saving; predictions keep their own
    return exit_code(lambda: write_analysis(arguments))


if __name__ == "__main__":
    sys.exit(main())
