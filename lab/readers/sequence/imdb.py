"""IMDb reviews: sentiment of whole reviews, the byte-level text classification of Long Range Arena."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from modeling_sft.data.files import damaged, dataset_folder, existing_file
from modeling_sft.data.sequence.text_files import check_texts
from modeling_sft.hub.values import require_integer

from ..contents import check_class_ids, read_parquet
from .rows import text_rows

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, one of:
  DATA_DIR/imdb/train.parquet, test.parquet                       text, label (0 negative, 1 positive)
  DATA_DIR/aclImdb/{train,test}/{pos,neg}/<id>_<rating>.txt       of https://ai.stanford.edu/~amaas/data/sentiment"""

CLASS_NAMES = ("negative", "positive")
FOLDERS = ("neg", "pos")
FILE_NAME = re.compile(r"(\d+)_(\d+)\.txt")


def read_imdb(data_dir: str | os.PathLike[str] | None, max_bytes: int | None = None) -> dict[str, Dataset]:
    """25,000 / 25,000 reviews, ordered by label, so shuffle them.

    Args:
        data_dir: see `LAYOUT`.
        max_bytes: bytes of each review's UTF-8 text to keep, from its beginning, without the part of a character that
            would be cut; `None` keeps all. Models of bytes and of byte pairs then read the same.

    Raises:
        ValueError: for absent and damaged files, and for a number of bytes below 4, the most that a character has.
    """
    require_integer("max_bytes", max_bytes, 4, or_none="to keep whole reviews")
    folder = dataset_folder("imdb", data_dir, LAYOUT, "aclImdb")
    read = _read_folder if (folder / "train").is_dir() else _read_parquet
    rows = {split: read(folder, split) for split in ("train", "test")}
    return {
        split: text_rows([_beginning(text, max_bytes) for text in texts], labels, CLASS_NAMES)
        for split, (texts, labels) in rows.items()
    }


def _beginning(text: str, max_bytes: int | None) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore")


def _read_parquet(folder: Path, split: str) -> tuple[list[str], list[int]]:
    path = existing_file(folder / f"{split}.parquet", LAYOUT)
    table = read_parquet(path, ("text", "label"))
    check_texts(path, "text", table["text"])
    check_class_ids(path, table["label"], len(CLASS_NAMES))
    return table["text"], table["label"]


def _read_folder(folder: Path, split: str) -> tuple[list[str], list[int]]:
    texts: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(FOLDERS):
        class_folder = folder / split / name
        if not class_folder.is_dir():
            raise ValueError(f"There is no folder {class_folder}; {LAYOUT}")
        numbers = {}
        for path in class_folder.glob("*.txt"):
            match = FILE_NAME.fullmatch(path.name)
            if match is None:
                raise damaged(path, "it is not named <id>_<rating>.txt")
            numbers[path] = int(match[1])
        if not numbers:
            raise ValueError(f"{class_folder} has no review; {LAYOUT}")
        for path in sorted(numbers, key=lambda path: numbers[path]):
            texts.append(_read_review(path))
            labels.append(label)
    return texts, labels


def _read_review(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no UTF-8 text ({error})") from error
    if not text.strip():
        raise damaged(path, "it is empty")
    return text
