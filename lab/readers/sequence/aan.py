"""ACL Anthology Network: pairs of papers, which are the retrieval task of Long Range Arena."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_sft.data.cache import cached_rows
from modeling_sft.data.files import damaged, dataset_folder, existing_file

from .rows import text_features

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, of https://github.com/google-research/long-range-arena:
  DATA_DIR/tsv_data/new_aan_pairs.train.tsv, new_aan_pairs.eval.tsv, new_aan_pairs.test.tsv
with label, id1, id2, text1 and text2 on each line, separated by tabs, without a header."""

SPLITS = {"train": "train", "validation": "eval", "test": "test"}
CLASS_NAMES = ("unrelated", "related")
LABELS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}


def read_aan(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """147,086 / 18,090 / 17,437 pairs of papers; a pair is related if one paper cites the other.

    Texts written as byte literals, such as b'...', are decoded as UTF-8; invalid bytes become U+FFFD.

    Raises:
        ValueError: for absent and damaged files.
    """
    from datasets import Features, Value

    folder = dataset_folder("aan", data_dir, LAYOUT, "tsv_data")
    columns = text_features(CLASS_NAMES)
    features = Features({"text": columns["text"], "text_pair": Value("string"), "label": columns["label"]})
    paths = {split: existing_file(folder / f"new_aan_pairs.{name}.tsv", LAYOUT) for split, name in SPLITS.items()}
    return {split: cached_rows(_generate, split, features, [path]) for split, path in paths.items()}


def _generate(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    path = files[0]
    row = -1
    try:
        # Split at \n only, as texts may contain other line separators.
        with path.open(encoding="utf-8", newline="\n") as file:
            for row, line in enumerate(file):
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) != 5:
                    raise damaged(path, f"row {row} (counted from 0) has {len(fields)} fields; expected 5")
                if fields[0] not in LABELS:
                    raise damaged(path, f"the label of row {row} (counted from 0) is {fields[0][:20]!r}, not 0 or 1")
                text, pair = (_text(path, row, field) for field in fields[3:])
                yield {"text": text, "text_pair": pair, "label": LABELS[fields[0]]}
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no UTF-8 text ({error})") from error
    if row < 0:
        raise damaged(path, "it has no rows")


def _text(path: Path, row: int, field: str) -> str:
    text = field
    if field.startswith(("b'", 'b"')):
        try:
            text = ast.literal_eval(field).decode("utf-8", errors="replace")
        except (SyntaxError, ValueError) as error:
            raise damaged(path, f"a text of row {row} (counted from 0) is no literal of bytes ({error})") from error
    if not text.strip():
        raise damaged(path, f"a text of row {row} (counted from 0) is empty")
    return text
