"""Write the page of results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  cp runs/nci1-folds/summary.json docs/results/nci1.json
  python scripts/results.py
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write docs/results.md from goals.yaml and the summaries of scripts/repeat.py beside it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--results", type=Path, default=Path("docs/results"), help="folder of goals.yaml and summaries (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/results.md"), help="default: %(default)s")
    return parser.parse_args()


def write_page(arguments: argparse.Namespace) -> None:
    from lab.releases import read_goals, render_results_page
    from modeling_sft.training.writing import replace_text

    replace_text(arguments.output, render_results_page(read_goals(arguments.results), arguments.results))
    print(f"written to {arguments.output}")


def main() -> int:
    arguments = parse_arguments()
    from modeling_sft.hub.folder_errors import exit_code

    return exit_code(lambda: write_page(arguments))


if __name__ == "__main__":
    sys.exit(main())
