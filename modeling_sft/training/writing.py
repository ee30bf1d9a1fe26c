"""Writing the small files of a run."""

from pathlib import Path

from ..hub.writing import replaced_file


def replace_text(path: Path, text: str) -> None:
    """Write a text file at once: a write that fails, as on a full disk, leaves the old file; links are not followed.

    Args:
        path: the file, in a folder that exists.
        text: its whole content, written as UTF-8.

    Raises:
        CannotWriteError: the disk is full or read-only.
        OSError: it cannot be written for another reason.
    """
    with replaced_file(path) as temporary, temporary.open("x", encoding="utf-8") as file:
        file.write(text)
