"""Compile the Triton kernels without a GPU, and count registers, spills, fences and instructions of inner loops."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path

EPILOG = """examples:
  python scripts/machine_code.py --output docs/benchmark/triton-sm90.csv
  python scripts/machine_code.py --scores dot --probabilities softmax --relations none --dtypes bfloat16
"""
CHOICES = {
    "scores": ("maxout", "dot"),
    "probabilities": ("relu", "softmax"),
    "relations": ("none", "distances", "normals", "offsets"),
    "dtypes": ("float32", "float16", "bfloat16"),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compile the Triton kernels with the compiler that Triton brings along, print what was counted in "
        "their machine code, and fail if a kernel has a fence of the whole GPU or spills more than MAX_STACK. No GPU "
        "is needed. Each kernel takes a few seconds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, values in CHOICES.items():
        default = values[:1] if name in ("scores", "probabilities") else values
        parser.add_argument(f"--{name}", nargs="+", choices=values, default=default, help="default: %(default)s")
    parser.add_argument("--architecture", type=int, default=90, help="compute capability (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="CSV", help="file to write the table to")
    parser.add_argument(
        "--max_stack", type=int, default=512, help="bytes per thread that a kernel may spill (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    os.environ["TRITON_INTERPRET"] = "0"
    from lab.benchmarks.machine_code import Variant, inspect, write_table

    choices = (options.scores, options.probabilities, options.relations, options.dtypes)
    variants = [Variant(*choice) for choice in itertools.product(*choices)]
    rows = []
    for row in inspect(variants, options.architecture):
        rows.append(row)
        print(
            f"{row.kernel:21} {row.score:6} {row.probability:7} {row.relation:9} {row.dtype:8} "
            f"registers {row.registers:3}, stack {row.stack_bytes:5}, shared {row.shared_bytes:5}, "
            f"fences {row.gpu_fences}, instructions {row.instructions:5}, loops {row.inner_loops}, "
            f"waits {row.inner_waits}",
            flush=True,
        )
    if options.output is not None:
        write_table(rows, options.output)
    faults = [row for row in rows if row.gpu_fences or row.stack_bytes > options.max_stack]
    for row in faults:
        print(f"error: {row.kernel}, {row.relation}, {row.dtype}: spills or fences", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
