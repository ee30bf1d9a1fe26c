"""Lay out the median run of a recipe as a repository of the Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/repeat.py configuration/mnist-pixels/sft.yaml --over seed=0,1,2 --data_dir data
  python scripts/release.py sft-mnist-pixels --runs runs/mnist-pixels-seeds
  python scripts/release.py      (renews comparison and card of all releases; the weights stay)
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Of the runs that scripts/repeat.py wrote, lay out the one with the median result as a repository "
        "of the Hub, with its card and the results of all runs, of its anchors and of others.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="models, as goals.yaml in --results names them (default: all that are released)",
    )
    parser.add_argument("--runs", type=Path, help="folder that scripts/repeat.py wrote, for one NAME")
    parser.add_argument("--output_dir", type=Path, default=Path("model_cards"), help="default: %(default)s")
    parser.add_argument(
        "--results", type=Path, default=Path("docs/results"), help="folder of goals.yaml and summaries (%(default)s)"
    )
    parser.add_argument("--org", default="org", help="owner of the repositories, for the cards (default: %(default)s)")
    return parser.parse_args()


def lay_out(arguments: argparse.Namespace) -> None:
    from lab.releases import comparison_tables, read_goals, refresh, release
    from modeling_sft.publishing import prepare

    goals = read_goals(arguments.results)
    names = arguments.names or [name for name in goals if (arguments.output_dir / name).is_dir()]
    unknown = [name for name in names if name not in goals]
    if unknown:
        raise ValueError(f"goals.yaml has no model {unknown[0]!r}; it has {', '.join(goals)}.")
    if arguments.runs is not None and len(names) != 1:
        raise ValueError("`--runs` are the runs of one model: name it.")
    for name in names:
        if arguments.runs is None:
            comparison = refresh(goals[name], arguments.output_dir, arguments.results)
        else:
            comparison = release(goals[name], arguments.runs, arguments.output_dir, arguments.results)
        folder = arguments.output_dir / name
        prepare(folder, f"{arguments.org}/{name}")
        print(f"{folder}\n\n{comparison_tables(comparison)}\n")


def main() -> int:
    arguments = parse_arguments()
    from transformers.utils import logging

    from modeling_sft.hub.folder_errors import exit_code

    logging.disable_progress_bar()
    return exit_code(lambda: lay_out(arguments))


if __name__ == "__main__":
    sys.exit(main())
