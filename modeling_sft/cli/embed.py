"""`sft embed`: one vector for each input."""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .arguments import FILES_EPILOG, add_files, add_folder

SUMMARY = "write one vector for each input"
DESCRIPTION = (
    "Write one vector for each input, in their order: the mean or maximum over the states that the backbone of the "
    "model in a folder gives its points, nodes or tokens. Any model will do, also one with a head."
)
EPILOG = f"""examples:
  sft embed runs/meshes chair.off table.stl --output vectors.npy
  sft embed runs/molecules new.smi --output vectors.csv --pooling max
  sft embed runs/texts reviews.csv --column review --output vectors.parquet --normalize

output, by its suffix:
  .npy           the vectors alone, an array (inputs, width of the model)
  .csv .parquet  a table: the column `input` with the file, text or SMILES, then v0, v1, ... with the vector

{FILES_EPILOG}"""
SUFFIXES = (".npy", ".csv", ".parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_folder(parser)
    add_files(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="OUTPUT", help="file to write: .npy, .csv or .parquet; see below"
    )
    parser.add_argument(
        "--pooling", choices=("mean", "max"), default="mean", help="over the states (default: %(default)s)"
    )
    parser.add_argument(
        "--normalize", action="store_true", help="scale each vector to length 1: products of them are then cosines"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the vectors, and print how many there are."""
    from ..hub.values import require_integer
    from ..hub.writing import only_writer

    require_integer("`batch_size`", arguments.batch_size, 1)
    check_output(arguments.output)
    # Held from now on: that nothing can be written there must not show after the work.
    with only_writer(arguments.output):
        names, vectors = embedded(arguments)
        write_vectors(arguments.output, names, vectors)
    print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers written to {arguments.output}")
    return 0


def embedded(arguments: argparse.Namespace) -> tuple[list[str], Any]:
    """The inputs that the arguments name, and their vectors (n, width)."""
    import numpy as np
    from tqdm import tqdm

    from .embedding_pipelines import PIPELINE_OF_MODALITY
    from .inputs import answers, read_inputs
    from .models import load_pipeline, saved_class

    config, model_class = saved_class(arguments.folder)
    inputs = read_inputs(config.modality, arguments.files, arguments.column)
    pipeline_class = PIPELINE_OF_MODALITY[config.modality]
    pipeline = load_pipeline(pipeline_class, model_class, arguments.folder, arguments.device)
    options = {"pooling": arguments.pooling, "normalize": arguments.normalize}
    found = answers(pipeline, inputs, arguments.batch_size, **options)
    # A progress bar, where standard error is a terminal.
    vectors = np.stack(list(tqdm(found, total=len(inputs), unit="input", disable=None)))
    return [entry.value for entry in inputs], vectors


def check_output(path: Path) -> None:
    """Refuse an output that could not be written after all the work.

    Raises:
        ValueError: another suffix, or a folder that does not exist.
        ImportError: Parquet without PyArrow.
    """
    from ..hub.optional import import_optional

    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`output` is `{path}`: use a name that ends in one of {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise ValueError(f"`output` is `{path}`: there is no folder `{path.parent}`.")
    if path.suffix.lower() == ".parquet":
        import_optional("pyarrow.parquet", "train")


def write_vectors(path: Path, names: Sequence[str], vectors: Any) -> None:
    """Write vectors (n, width), with the n names in the first column where the file is a table.

    Raises:
        OSError: the file cannot be written; an earlier one stays.
    """
    import numpy as np

    from ..hub.writing import replaced_file

    columns = [f"v{index}" for index in range(vectors.shape[1])]
    with replaced_file(path) as new:
        if path.suffix.lower() == ".npy":
            # To memory first: NumPy does not notice that the end of a file did not fit on the disk.
            content = io.BytesIO()
            np.save(content, vectors)
            new.write_bytes(content.getbuffer())
        elif path.suffix.lower() == ".csv":
            with new.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("input", *columns))
                writer.writerows((name, *vector) for name, vector in zip(names, vectors, strict=True))
        else:
            import pyarrow
            import pyarrow.parquet

            table = {"input": list(names), **dict(zip(columns, vectors.T, strict=True))}
            pyarrow.parquet.write_table(pyarrow.table(table), new)
