"""Compare the speed and memory of SFT with those of other models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/benchmark.py --suite tokens
  python scripts/benchmark.py --suite tokens --lengths 1024 65536 --models sft bert --modes inference
  python scripts/benchmark.py --suite point_clouds --output_dir runs/benchmark-clouds
  python scripts/benchmark.py --suite scenes --modes inference --rounds 1 --min_seconds 0 --time_limit_s 600
  python scripts/benchmark.py --suite large_graphs --modes inference --rounds 1 --min_seconds 0 --time_limit_s 600
  python scripts/benchmark.py --suite attention --device cuda --dtype float32 bfloat16
  python scripts/benchmark.py --suite tokens --append     (goes on after an interruption)
  python scripts/benchmark.py --list
"""
SUITES = ("tokens", "point_clouds", "scenes", "graphs", "large_graphs", "attention", "layer", "kernels")
DTYPES = ("float32", "bfloat16")
SIZES = {
    "hidden_size": "width D",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "inner width of the feed-forward",
    "num_sampled_tokens": "K of SFT",
    "score_head_dim": "query and key channels per head of SFT",
}


class ListAction(argparse.Action):
    """Print suites and models, and exit."""

    def __call__(self, *_: object) -> None:
        from lab.benchmarks import SUITES as suites

        print("Models with a * run unless --models chooses others.")
        for suite in suites.values():
            print(f"\n{suite.name}: {suite.description}\n  default lengths {suite.lengths}; {suite.size}")
            for name, case in suite.cases.items():
                print(f"  {name}{'*' if name in suite.default_models else ''}: {case.label}")
        sys.exit()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Check SFT's attention backends against float64, then time SFT and its peers in turn within one "
        "process, and write results.csv, table.md, a log-log figure and environment.json. Times are CPU seconds, or "
        "those of a CUDA stream. Ctrl-C keeps what was measured.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "print suites, models and sizes, and exit"
    parser.add_argument("--list", action=ListAction, nargs=0, default=argparse.SUPPRESS, help=text)
    parser.add_argument("--suite", choices=SUITES, required=True, help="what to compare; see --list")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/benchmark"), help="default: %(default)s")
    parser.add_argument(
        "--append",
        action="store_true",
        help="keep the results in OUTPUT_DIR and measure only what they lack (otherwise they are replaced); models "
        "measured in different runs did not take turns",
    )
    parser.add_argument("--lengths", type=positive, nargs="+", metavar="N", help="tokens, points or nodes per sample")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="see --list; all for all of them")
    parser.add_argument("--modes", nargs="+", choices=("inference", "training"), default=["inference", "training"])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"], dest="dtypes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:INDEX (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="timings of each model (default: %(default)s)")
    parser.add_argument(
        "--min_seconds",
        type=float,
        default=0.2,
        metavar="S",
        help="a timing repeats a pass until it takes about this long (default: %(default)s)",
    )
    parser.add_argument("--threads", type=positive, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs (default: %(default)s)")
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="on the CPU, run a first pass of each model in a child process, which measures its peak memory and stops "
        "it at the limits (default: yes)",
    )
    parser.add_argument(
        "--memory_limit_gib",
        type=float,
        default=8.0,
        metavar="GIB",
        help="of one pass, beyond the model; a model that needs more is not run at larger N (default: %(default)s)",
    )
    parser.add_argument(
        "--time_limit_s",
        type=float,
        default=60.0,
        metavar="S",
        help="of one pass; a model that takes longer is not run at larger N (default: %(default)s)",
    )
    parser.add_argument("--batch_size", type=positive, metavar="B", help="default: that of the suite")
    sizes = parser.add_argument_group("sizes of the models", "in place of those of the suite")
    for name, text in SIZES.items():
        sizes.add_argument(f"--{name}", type=positive, metavar="SIZE", help=text)
    return parser.parse_args()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: use an integer of at least 1")
    return value


def main() -> int:
    options = vars(parse_arguments())
    from transformers.utils import logging

    from lab.benchmarks import BenchmarkSettings, CorrectnessError, run_benchmark

    logging.set_verbosity_error()
    sizes = {name: options.pop(name) for name in SIZES}
    size = {name: value for name, value in sizes.items() if value is not None}
    try:
        run_benchmark(BenchmarkSettings(**options, size=size))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except CorrectnessError as error:
        print(f"error: wrong results, nothing was timed:\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is in {options['output_dir']}", file=sys.stderr)
        return 130
    print(f"written to {options['output_dir']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
