"""Count the answers of a saved model that change when points or nodes are given in another order."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/order.py model_cards/sft-modelnet10-invariant --data_dir data
  python scripts/order.py model_cards/sft-peptides-func --data_dir data --limit 300
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Predict the test split of a model's recipe twice, the second time with the points of every "
        "cloud, or the nodes and edges of every graph, permuted. Print how many rows changed a logit, and how many "
        "their prediction.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder of a saved model with its processor and recipe"
    )
    parser.add_argument("--data_dir", type=Path, help="folder that contains the data sets")
    parser.add_argument("--seed", type=int, default=0, help="of the permutations (%(default)s)")
    parser.add_argument("--limit", type=int, help="only so many rows (default: all)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    from lab.analysis.order import measure_order
    from modeling_sft.hub.folder_errors import exit_code

    return exit_code(lambda: print(measure_order(**vars(arguments))))


if __name__ == "__main__":
    sys.exit(main())
