"""How commands print their results: as aligned text, or as JSON."""

import json
from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any


def print_result(result: Any, text: Callable[[Any], str], as_json: bool) -> None:
    """Print a result as JSON, or as the text that a function makes of it."""
    print(
        json.dumps(result, indent=2, ensure_ascii=False, default=methodcaller("tolist")) if as_json else text(result)
    )


def aligned(entries: Mapping[str, Any]) -> str:
    """One line per name and value, with all values in one column."""
    width = max(map(len, entries))
    return "\n".join(f"  {name.ljust(width)}  {value}".rstrip() for name, value in entries.items())
