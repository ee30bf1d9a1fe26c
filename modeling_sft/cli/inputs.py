"""Inputs of models from files and standard input, and what a pipeline answers for them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..hub.lines import entries_of_lines, read_entries

# What names the column of a table where `--column` does not.
COLUMN_OF_MODALITY = {"sequence": "text", "graph": "smiles"}


class Input(NamedTuple):
    """One input of a model."""

    value: str
    """The path of a cloud, a text or a SMILES."""
    source: str
    """The file that it comes from, as errors name it."""


def read_inputs(modality: str, files: Sequence[str], column: str | None = None) -> list[Input]:
    """The inputs in files, in their order.

    Args:
        modality: of the model's configuration.
        files: see `sft predict --help`.
        column: of tables; `text` of texts and `smiles` of graphs by default.

    Raises:
        ValueError: files that cannot be read, absent files of clouds, or nothing to read at all.
        OSError: absent files of lines.
    """
    if modality == "point_cloud":
        absent = [name for name in files if not Path(name).is_file()]
        if absent:
            raise ValueError(f"There is no file `{absent[0]}`.")
        inputs = [Input(name, name) for name in files]
    else:
        inputs = []
        for name in files or ["-"]:
            if name == "-":
                values = entries_of_lines(sys.stdin, first_word=modality == "graph")
            else:
                values = read_entries(name, column or COLUMN_OF_MODALITY[modality])
            inputs += [Input(value, "standard input" if name == "-" else name) for value in values]
    if not inputs:
        raise ValueError("There is nothing to read: name files, or pass texts or SMILES by standard input.")
    return inputs


def answers(pipeline: Any, inputs: Sequence[Input], batch_size: int, **options: Any) -> Iterator[Any]:
    """What a pipeline answers for each input, in order, one batch after the other.

    Args:
        pipeline: of Transformers.
        inputs: to answer for.
        batch_size: inputs at once.
        options: of a call of the pipeline.

    Raises:
        ValueError: an input cannot be read or does not fit the model; the message names its file.
    """
    num_read = 0

    def values() -> Iterator[str]:
        nonlocal num_read
        for entry in inputs:
            num_read += 1
            yield entry.value

    try:
        yield from pipeline(values(), batch_size=batch_size, **options)
    except ValueError as error:
        # Which of the last batch it is, only the message says, if it is about one input.
        start = (num_read - 1) // batch_size * batch_size
        names = list(dict.fromkeys(entry.source for entry in inputs[start:num_read]))
        if any(name in str(error) for name in names):
            raise
        raise ValueError(f"In {' or '.join(f'`{name}`' for name in names)}: {error}") from error
