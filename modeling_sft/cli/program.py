"""The command `sft` as a whole: its words, its help, and the one place that says errors."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType

from . import embed, evaluate, info, listing, predict, publish, repeat, train
from .printing import aligned, standard_output

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "embed": embed,
    "info": info,
    "list": listing,
    "publish": publish,
    "repeat": repeat,
}
"""Each has `SUMMARY`, `DESCRIPTION` and `EPILOG` for its help, `add_arguments` and `run`."""

DESCRIPTION = "Sampling Foundational Transformer: train, evaluate, use and share models."
EPILOG = """examples:
  sft list
  sft train configuration/digits/sft.yaml
  sft evaluate runs/digits
  sft predict runs/meshes chair.off table.stl
`sft COMMAND --help` says more. `python -m modeling_sft` is the same command.
"""
# Any other error of a training is a mistake in code, whose place must be seen.
RECIPE_ERRORS = (ValueError, OSError, ImportError)
COMMANDS_THAT_TRAIN = ("train", "repeat")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, which prints its result.

    Args:
        arguments: the words of the command line; those of this process by default.

    Returns:
        The exit code: 0, or 2 after an error, which is printed to standard error.
    """
    given = build_parser().parse_args(arguments)
    # Intermixed, since settings of a recipe and files may stand after options; sub-parsers of argparse cannot do that.
    options = build_command_parser(given.command).parse_intermixed_args(given.words)
    from transformers.utils import logging

    from ..hub.folder_errors import FOLDER_ERRORS, error_line

    logging.disable_progress_bar()  # of loading and saving; trainings and uploads keep their own
    planned_errors = RECIPE_ERRORS if given.command in COMMANDS_THAT_TRAIN else FOLDER_ERRORS
    try:
        code = COMMANDS[given.command].run(options)
        with standard_output():
            return code
    except planned_errors as error:
        print(error_line(error), file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command's name; the other words are left to its own parser."""
    commands = aligned({name: command.SUMMARY for name, command in COMMANDS.items()})
    parser = _parser("sft", DESCRIPTION, f"commands:\n{commands}\n\n{EPILOG}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    return parser


def build_command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    command = COMMANDS[name]
    parser = _parser(f"sft {name}", command.DESCRIPTION, command.EPILOG)
    command.add_arguments(parser)
    return parser


def _parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    # The formatter keeps the lines of examples, and with them those of descriptions.
    return argparse.ArgumentParser(
        prog=program,
        description=textwrap.fill(description, max(20, shutil.get_terminal_size().columns - 2)),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
