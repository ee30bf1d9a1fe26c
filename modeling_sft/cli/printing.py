"""How commands print their results: as aligned text, or as JSON."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import methodcaller
from typing import Any


def print_result(result: Any, text: Callable[[Any], str], as_json: bool) -> None:
    """Print a result as JSON, or as the text that a function makes of it.

    Raises:
        OSError: standard output cannot be written.
    """
    with standard_output():
        print(
            json.dumps(result, indent=2, ensure_ascii=False, default=methodcaller("tolist"))
            if as_json
            else text(result)
        )


@contextmanager
def standard_output() -> Iterator[None]:
    """Around what prints: all of it is written at the end, or a full disk said.

    Raises:
        OSError: standard output cannot be written.
    """
    from ..hub.writing import CannotWriteError, plain_errors

    try:
        with plain_errors("standard output"):
            yield
            sys.stdout.flush()
    except CannotWriteError:
        # Python writes the rest when it ends, which would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def aligned(entries: Mapping[str, Any]) -> str:
    """One line per name and value, with all values in one column."""
    width = max(map(len, entries))
    return "\n".join(f"  {name.ljust(width)}  {value}".rstrip() for name, value in entries.items())
