"""The command `sft publish` under its former name, for launchers that start a script."""

from __future__ import annotations

import sys

import lab  # noqa: F401 (makes benchmark sets and baselines known by name)
from modeling_sft import cli


def main() -> int:
    return cli.main(["publish", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
