"""Plain text without labels, for masked language modelling."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache import cached_rows
from ..files import SPLITS, damaged

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout:
  DATA_DIR/train.txt, and DATA_DIR/validation.txt and DATA_DIR/test.txt if there are some
in UTF-8."""

UNITS = ("line", "paragraph", "document")


def read_plain_text(data_dir: str | os.PathLike[str] | None, by: str = "line") -> dict[str, Dataset]:
    """One row for each piece of text that is not blank.

    Args:
        data_dir: the folder itself.
        by: what a row is: a "line", a "paragraph" (lines up to a blank one) or a "document" (the file).

    Raises:
        ValueError: for another `by`, an absent folder or file, and one that is blank or not UTF-8.
    """
    from datasets import Features, Value

    if by not in UNITS:
        raise ValueError(f"by must be one of {', '.join(UNITS)}; got {by!r}.")
    if data_dir is None:
        raise ValueError(f"data_dir is needed for plain_text; {LAYOUT}")
    paths = {split: Path(data_dir) / f"{split}.txt" for split in SPLITS}
    if not paths["train"].is_file():
        raise ValueError(f"There is no file {paths['train']}; {LAYOUT}")
    features = Features({"text": Value("string")})
    return {
        split: cached_rows(_generate, split, features, [path], by=by)
        for split, path in paths.items()
        if path.is_file()
    }


def _generate(files: Sequence[Path], by: str) -> Iterator[dict[str, str]]:
    is_blank = True
    try:
        for text in _pieces(files[0], by):
            is_blank = False
            yield {"text": text}
    except UnicodeDecodeError as error:
        raise damaged(files[0], f"it is no UTF-8 text ({error})") from error
    if is_blank:
        raise damaged(files[0], "it has no text")


def _pieces(path: Path, by: str) -> Iterator[str]:
    """Line by line, so that a large file is never in memory as a whole, unless it is one document."""
    with path.open(encoding="utf-8-sig") as file:
        lines: list[str] = []
        for line in file:
            if line.strip() or by == "document":
                lines.append(line)
            if lines and (by == "line" or (by == "paragraph" and not line.strip())):
                yield "".join(lines).rstrip("\n")
                lines = []
        if "".join(lines).strip():
            yield "".join(lines).rstrip("\n")
