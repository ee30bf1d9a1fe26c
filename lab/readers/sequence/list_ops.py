"""ListOps: the original expressions, and the long ones of Long Range Arena, read or generated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_sft.data.cache import cached_rows
from modeling_sft.data.files import damaged, dataset_folder, existing_file
from modeling_sft.data.sequence.text_files import check_texts
from modeling_sft.hub.values import require_integer

from ..contents import check_class_ids, read_lines, read_parquet
from .list_ops_expressions import DIGITS, ListOpsGenerator, evaluate_list_ops
from .rows import text_features, text_rows

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, made from the files of https://github.com/nyu-mll/spinn:
  DATA_DIR/listops/listops.parquet
with text (tokens separated by spaces), label (0 to 9) and split (train, val or test)."""

LRA_LAYOUT = """expected layout, of https://github.com/google-research/long-range-arena:
  DATA_DIR/listops-1000/basic_train.tsv, basic_val.tsv, basic_test.tsv
each with the columns Source and Target; or leave out data_dir, to generate the expressions."""

OPTIONS = (
    "num_train",
    "num_validation",
    "num_test",
    "seed",
    "min_length",
    "max_length",
    "max_depth",
    "max_args",
)
"""Options of [`read_lra_list_ops`]."""

SPLITS = {"train": "train", "val": "validation", "test": "test"}
CLASS_NAMES = tuple(DIGITS)


def read_list_ops(data_dir: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """19,389 / 2,000 / 2,000 expressions of up to 1,016 tokens; the split is not official.

    Raises:
        ValueError: for an absent or damaged file.
    """
    path = existing_file(dataset_folder("listops", data_dir, LAYOUT) / "listops.parquet", LAYOUT)
    table = read_parquet(path, ("text", "label", "split"))
    check_texts(path, "text", table["text"])
    check_class_ids(path, table["label"], len(CLASS_NAMES))
    unknown = set(table["split"]) - set(SPLITS)
    absent = set(SPLITS) - set(table["split"])
    if unknown or absent:
        problem = f"has {unknown.pop()!r}, which is no split" if unknown else f"has no row of {absent.pop()!r}"
        raise damaged(path, f"column 'split' {problem}")
    rows = {}
    for name, split in SPLITS.items():
        indices = [row for row, value in enumerate(table["split"]) if value == name]
        texts, labels = ([table[column][row] for row in indices] for column in ("text", "label"))
        rows[split] = text_rows(texts, labels, CLASS_NAMES)
    return rows


def read_lra_list_ops(
    data_dir: str | os.PathLike[str] | None = None,
    num_train: int = 96_000,
    num_validation: int = 2_000,
    num_test: int = 2_000,
    seed: int = 0,
    min_length: int = 500,
    max_length: int = 2_000,
    max_depth: int = 10,
    max_args: int = 10,
) -> dict[str, Dataset]:
    """Long expressions: the files of Long Range Arena if `data_dir` has them, otherwise rows generated once and kept.

    Generated rows are a pure function of the seed, the split and the settings of the trees; a larger split begins with
    the rows of a smaller one.

    Args:
        data_dir: folder that may hold `listops-1000`, which is read as it is.
        num_train: number of training rows to generate.
        num_validation: number of validation rows to generate.
        num_test: number of test rows to generate.
        seed: seed of the generated rows, from 0 to 2**32 - 1.
        min_length: see `ListOpsGenerator`.
        max_length: see `ListOpsGenerator`.
        max_depth: see `ListOpsGenerator`.
        max_args: see `ListOpsGenerator`.

    Raises:
        ValueError: for options that are out of range or cannot be met, and for damaged files.
    """
    if data_dir is not None and (Path(data_dir) / "listops-1000").is_dir():
        return {split: _read_lra_file(Path(data_dir) / "listops-1000", name) for name, split in SPLITS.items()}
    sizes = {"test": num_test, "validation": num_validation, "train": num_train}
    for split, size in sizes.items():
        require_integer(f"num_{split}", size, 1)
    require_integer("seed", seed, 0, 2**32 - 1)
    options: dict[str, Any] = {
        "generator": ListOpsGenerator(min_length, max_length, max_depth, max_args),
        "seed": int(seed),
    }
    return {
        split: cached_rows(
            _generate,
            split,
            text_features(CLASS_NAMES),
            # Pass the sizes of earlier splits as well: expressions that occur in them are left out here.
            num_rows=tuple(sizes.items())[: list(sizes).index(split) + 1],
            **options,
        )
        for split in SPLITS.values()
    }


def _generate(
    generator: ListOpsGenerator, seed: int, num_rows: tuple[tuple[str, int], ...]
) -> Iterator[dict[str, Any]]:
    """The rows of the last split."""
    for text in generator.distinct(seed, dict(num_rows), num_rows[-1][0]):
        yield {"text": text, "label": evaluate_list_ops(text)}


def _read_lra_file(folder: Path, name: str) -> Dataset:
    path = existing_file(folder / f"basic_{name}.tsv", LRA_LAYOUT)
    header, *lines = read_lines(path) or [""]
    if header.split("\t") != ["Source", "Target"]:
        raise damaged(path, f"its columns are not Source and Target but {header[:80]!r}")
    texts, labels = [], []
    for number, line in enumerate(lines):
        source, _, target = line.partition("\t")
        tokens = [token for token in source.split() if token not in ("(", ")")]
        if not tokens or target not in DIGITS:
            raise damaged(path, f"row {number} (counted from 0) is no expression with its value, 0 to 9")
        texts.append(" ".join(tokens))
        labels.append(DIGITS[target])
    if not texts:
        raise damaged(path, "it has no rows")
    return text_rows(texts, labels, CLASS_NAMES)
