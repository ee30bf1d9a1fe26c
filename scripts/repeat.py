"""Train and evaluate a recipe for several seeds or folds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/repeat.py configuration/digits/sft.yaml --over seed=0,1,2
  python scripts/repeat.py configuration/nci1/sft.yaml --over dataset.fold=0,1,2,3,4,5,6,7,8,9 --data_dir data
  python scripts/repeat.py configuration/nci1/sft.yaml --over dataset.fold=0,1,2 --data_dir data --resume
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a recipe once for each value of a setting, evaluate each model on the test split, and "
        "print all results with mean and standard deviation; they are also written to summary.json. Each run has its "
        "own folder, as scripts/train.py writes it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="recipe file, such as configuration/nci1/sft.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.name=value", help="settings that replace those of the recipe"
    )
    parser.add_argument(
        "--over", required=True, metavar="NAME=V1,V2,...", help="what differs from run to run: seed=0,1,2"
    )
    parser.add_argument(
        "--output_dir", type=Path, help="folder to write (default: runs/RECIPE-NAME, as --over names it)"
    )
    parser.add_argument("--data_dir", type=Path, help="folder that contains the data sets, where a data set needs one")
    parser.add_argument(
        "--resume", action="store_true", help="keep finished runs, and continue one that was interrupted"
    )
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse_arguments()
    from transformers.utils import logging

    from modeling_sft.folder_errors import error_line
    from modeling_sft.training import format_summary, repeat
    from modeling_sft.training.recipe_files import recipe_name

    logging.disable_progress_bar()  # of loading and saving; training keeps its own
    try:
        setting, _, values = arguments.over.partition("=")
        if not setting or not values:
            raise ValueError(f"`--over` must be NAME=V1,V2,..., such as seed=0,1,2; got {arguments.over!r}.")
        path = Path(arguments.recipe)
        name = f"{recipe_name(path)}-{setting.rpartition('.')[2]}s"
        output_dir = arguments.output_dir or Path("runs") / name
        summary = repeat(
            path, setting, values.split(","), output_dir, arguments.data_dir, arguments.overrides, arguments.resume
        )
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error), file=sys.stderr)
        return 2
    print(format_summary(summary))
    print(f"written to {output_dir / 'summary.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
