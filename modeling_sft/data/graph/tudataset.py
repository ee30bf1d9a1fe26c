"""Graphs of one's own in the text files of TUDataset, and sets of many graphs by folds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hub.optional import import_optional
from ...hub.values import require_integer
from .folds import fold_indices
from .packed import ReadPacked, packed_rows
from .rows import graph_features, target_feature
from .tudataset_texts import LABELS, read_tu_class_names, read_tu_texts, tu_files

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout, with the same name in all files:
  DATA_DIR/<NAME>_A.txt, <NAME>_graph_indicator.txt, <NAME>_graph_labels.txt or <NAME>_graph_attributes.txt
      and <NAME>_node_labels.txt, <NAME>_node_attributes.txt, <NAME>_edge_labels.txt, <NAME>_edge_attributes.txt, where
      there are some, as https://chrsmrrs.github.io/datasets describes them; the files may be in DATA_DIR/raw."""

SPLIT_OPTIONS = ("fold", "num_folds", "validation", "test_fraction", "seed")
FEATURE_OPTIONS = ("graph_attributes", "max_degree", "node_attributes", "edge_attributes")
OPTIONS = ("path", *SPLIT_OPTIONS, *FEATURE_OPTIONS)


def read_tudataset(
    data_dir: str | os.PathLike[str] | None,
    path: str | os.PathLike[str] | None = None,
    fold: int = 0,
    num_folds: int = 10,
    validation: str | float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    graph_attributes: bool | None = None,
    max_degree: int = 135,
    node_attributes: bool | None = None,
    edge_attributes: bool | None = None,
) -> dict[str, Dataset]:
    """Reads the graphs of a set of any name; see `read_tu_texts` for the features.

    Args:
        data_dir: the folder itself.
        path: the folder, in `data_dir` if that is given and `path` is not absolute.
        fold, num_folds, validation, test_fraction, seed: see `fold_indices`.
        graph_attributes: whether to predict the attributes of graphs, (T,) float32, in place of their class; None for
            where there is no file of classes.
        max_degree: the largest category where nodes have no features and get their degrees as categories.
        node_attributes, edge_attributes: whether to read continuous attributes; None for where there is a file of
            them.

    Raises:
        ValueError: for absent and damaged files, and options out of range.
    """
    require_integer("max_degree", max_degree, 1)
    if data_dir is None and path is None:
        raise ValueError(f"data_dir is needed for tudataset; {LAYOUT}")
    files = _files(Path(data_dir or "") / str(path or ""))
    has_classes = any(file.name.endswith(f"_{LABELS}.txt") for file in files)
    options = {
        "graph_attributes": not has_classes if graph_attributes is None else bool(graph_attributes),
        "max_degree": max_degree,
        "node_attributes": node_attributes,
        "edge_attributes": edge_attributes,
    }
    names = None if options["graph_attributes"] else read_tu_class_names(files)
    splits = {
        "fold": fold,
        "num_folds": num_folds,
        "validation": validation,
        "seed": seed,
        "test_fraction": test_fraction,
    }
    return split_packed(read_tu_texts, "tudataset", files, names, options, splits)


def split_packed(
    read: ReadPacked,
    name: str,
    files: Sequence[Path],
    class_names: Sequence[str] | None,
    options: Mapping[str, Any],
    splits: Mapping[str, Any],
) -> dict[str, Dataset]:
    """The rows of packed graphs by split.

    Args:
        read: called as `read(files, **options)`.
        name: of the set, for the progress bar.
        files: what is read.
        class_names: of the classes of graphs; None for targets.
        options: of `read`.
        splits: of `fold_indices`.

    Raises:
        ValueError: as `read` and `fold_indices`.
    """
    graphs = read(files, **options)

    def table(array: Any) -> tuple[int, str]:
        return array.shape[1], str(array.dtype)

    datasets = import_optional("datasets", "graphs")
    y = target_feature(graphs.y.shape[1]) if class_names is None else datasets.ClassLabel(names=list(class_names))
    edges = None if graphs.edge_attr is None else table(graphs.edge_attr)
    parts = fold_indices(graphs.y, **splits)
    rows = packed_rows(read, name, graph_features(y, table(graphs.node_feat), edges), files, options=options)
    return {split: rows.select(part) for split, part in parts.items()}


def _files(folder: Path) -> list[Path]:
    edges = sorted(folder.glob("*_A.txt")) or sorted((folder / "raw").glob("*_A.txt"))
    if not edges:
        raise ValueError(f"{folder} has no file <NAME>_A.txt; {LAYOUT}")
    if len(edges) > 1:
        raise ValueError(f"{edges[0].parent} has both {edges[0].name} and {edges[1].name}: give a folder of one set.")
    return tu_files(edges[0].parent, edges[0].name.removesuffix("_A.txt"), LAYOUT)
