"""Compare variants of a recipe over seeds, and write the page of ablations."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/ablate.py configuration/ablations/shrec16.yaml --list
  python scripts/ablate.py configuration/ablations/shrec16.yaml --data_dir data --only sampler norm
  python scripts/ablate.py configuration/ablations/shrec16.yaml --data_dir data --resume
  python scripts/ablate.py --report docs/ablations/shrec16.json docs/ablations/nci1.json --docs docs/ablations.md
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the variants that a study file names, each once per seed, evaluate them on validation data "
        "and print tables; results.json and ablation.png are written beside the runs. Or render the page of several "
        "studies from their results (--report).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", type=Path, metavar="STUDY.yaml", help="study file to run")
    parser.add_argument("--data_dir", type=Path, help="folder that contains the data sets, where a data set needs one")
    parser.add_argument("--output_dir", type=Path, help="folder to write (default: runs/ablation-STUDY)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="COMPARISON",
        help="run these comparisons alone; different ones may run side by side in one folder, with --resume",
    )
    parser.add_argument("--list", action="store_true", help="list comparisons and the trainings they take, and stop")
    parser.add_argument(
        "--resume", action="store_true", help="keep finished runs, and continue one that was interrupted"
    )
    parser.add_argument("--report", nargs="+", type=Path, metavar="RESULTS.json", help="results to render as a page")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs/ablations.md"), help="page that --report writes (%(default)s)"
    )
    parser.add_argument(
        "--figures", type=Path, default=Path("docs/figures"), help="folder of the page's figures (%(default)s)"
    )
    arguments = parser.parse_args()
    if (arguments.study is None) == (arguments.report is None):
        parser.error("give either a study file or --report")
    return arguments


def run_study(arguments: argparse.Namespace) -> None:
    from lab.ablations import Study, ablate, format_ablation, plot_ablation

    study = Study.from_yaml(arguments.study)
    if arguments.list:
        for name, comparison in study.comparisons.items():
            print(f"{name}: {comparison.title}, {len(study.runs([name]))} trainings")
            for variant in comparison.variants:
                reference = " (reference)" if variant.is_reference else ""
                print(f"  {variant.label}{reference}, {len(variant.inference)} evaluations per seed")
        print(f"{len(study.runs(arguments.only))} different trainings in all")
        return
    output_dir = arguments.output_dir or Path("runs") / f"ablation-{study.name}"
    results = ablate(study, output_dir, arguments.data_dir, arguments.only, arguments.resume)
    plot_ablation(results, output_dir / "ablation.png")
    print(format_ablation(results))
    print(f"written to {output_dir / 'results.json'} and {output_dir / 'ablation.png'}")


def write_report(arguments: argparse.Namespace) -> None:
    from lab.ablations import plot_ablation, read_results, render_ablations_page
    from modeling_sft.training.writing import replace_text

    studies = [read_results(path) for path in arguments.report]
    names = [results["study"] for results in studies]
    if len(set(names)) < len(names):
        raise ValueError(f"`--report` names a study twice: {', '.join(names)}.")
    arguments.figures.mkdir(parents=True, exist_ok=True)
    arguments.docs.parent.mkdir(parents=True, exist_ok=True)
    figures = {}
    for results in studies:
        path = arguments.figures / f"ablation-{results['study']}.png"
        plot_ablation(results, path)
        figures[results["study"]] = Path(os.path.relpath(path, arguments.docs.parent)).as_posix()
    replace_text(arguments.docs, render_ablations_page(studies, figures))
    print(f"written to {arguments.docs} and {arguments.figures}")


def main() -> int:
    arguments = parse_arguments()
    from transformers.utils import logging

    from modeling_sft.hub.folder_errors import exit_code

    logging.disable_progress_bar()  # of loading and saving; training keeps its own
    return exit_code(lambda: run_study(arguments) if arguments.report is None else write_report(arguments))


if __name__ == "__main__":
    sys.exit(main())
