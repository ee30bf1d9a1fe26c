"""Which graph data sets can be read, by name: files of one's own, and what others add."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..registry import ReaderEntry, read_by_name
from .node_csv import OPTIONS as NODE_OPTIONS
from .node_csv import node_csv_reader
from .smiles_files import OPTIONS as SMILES_OPTIONS
from .smiles_files import read_smiles_files, smiles_target_names
from .tudataset import OPTIONS as TU_OPTIONS
from .tudataset import read_tudataset

if TYPE_CHECKING:
    from datasets import DatasetDict

GRAPH_READERS: dict[str, ReaderEntry] = {
    "node_csv": ReaderEntry(node_csv_reader("node_csv", None), NODE_OPTIONS),
    "ogbn_arxiv": ReaderEntry(node_csv_reader("ogbn_arxiv", "arxiv"), NODE_OPTIONS),
    "ogbn_products": ReaderEntry(node_csv_reader("ogbn_products", "products"), NODE_OPTIONS),
    "smiles_files": ReaderEntry(read_smiles_files, SMILES_OPTIONS, smiles_target_names, is_molecular=True),
    "tudataset": ReaderEntry(read_tudataset, TU_OPTIONS),
}


def load_graph_dataset(name: str, data_dir: str | os.PathLike[str] | None = None, **options: Any) -> DatasetDict:
    """Reads a data set of graphs.

    Args:
        name: one of `GRAPH_READERS`; docs/graph_data.md lists them with their layouts.
        data_dir: folder that holds one folder for each data set; for "node_csv", "smiles_files" and "tudataset", the
            folder itself; "smiles_files" may be a single file.
        options: what the reader of this data set accepts, see there.

    Returns:
        DatasetDict with `train` and, where the source has them, `validation` and `test`. Columns, as NumPy arrays:
        `num_nodes`; `node_feat` (num_nodes, C), int64 categories or float32; `edge_index` (2, E) int64, directed;
        where the source has them `edge_attr` (E, C), int64 or float32; and `y`, a ClassLabel for one class per graph,
        (T,) float32 for targets and several labels, NaN where one is missing, or (num_nodes,) int64 for classes of
        the nodes, -100 where there is none; for links instead of `y` `edge_label_index` (2, M) and `edge_label` (M,)
        int64.

    Raises:
        ValueError: for an unknown name or option, for absent files (the message shows the layout and where to get
            them) and for damaged ones.
        ImportError: for files that need an optional library that is not installed.
    """
    return read_by_name(GRAPH_READERS, "graph", "graphs", name, data_dir, options)
