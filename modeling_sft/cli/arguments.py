"""The arguments that several commands have."""

import argparse
from pathlib import Path

FILES_EPILOG = """files, by the model's kind of input:
  point clouds  one cloud or mesh each: .npy .npz .ply .off .obj .stl .xyz .txt .csv .h5
  sequences     .txt, one text per line; .csv or .tsv with a column of texts
  graphs        .smi or .txt, one SMILES per line; .csv or .tsv with a column of SMILES
Without files, or for "-", texts and SMILES are read from standard input, one per line. Blank lines are skipped.
"""


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a saved model."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with a saved model")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the files that a model reads, and how it goes through them."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="inputs of the model; see below")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="inputs at once (default: %(default)s)")
    parser.add_argument("--device", help="such as cuda or cpu (default: the first accelerator, if any)")
    parser.add_argument("--column", metavar="NAME", help="column of a table (default: text or smiles)")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add a recipe and the settings that replace its own."""
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="recipe file, such as configuration/digits/sft.yaml")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.name=value",
        help="settings that replace those of the recipe: model.hidden_size=64 training.num_train_epochs=3 seed=1 "
        "(values in YAML; null removes an optional section)",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the folder of the data sets."""
    parser.add_argument("--data_dir", type=Path, help="folder that contains the data sets, where a data set needs one")
