"""Writing the small files of a run."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a text file at once: a write that fails, as on a full disk, leaves the old file; links are not followed.

    Args:
        path: the file, in a folder that exists.
        text: its whole content, written as UTF-8.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
