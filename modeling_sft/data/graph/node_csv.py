"""One graph with classes of its nodes, in the csv files of the Open Graph Benchmark (OGB, arXiv 2005.00687)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...hub.optional import import_optional
from ...nn.checks import IGNORED_LABEL
from ..cache import cached_rows
from ..files import damaged, dataset_folder, existing_file
from .rows import graph_features

if TYPE_CHECKING:
    from datasets import Dataset

LAYOUT = """expected layout:
  {folder}/raw/edge.csv.gz              source, target: one line for each edge, nodes counted from 0
  {folder}/raw/node-feat.csv.gz         one line for each node
  {folder}/raw/node-label.csv.gz        the class of each node, from 0 on, empty where there is none
  {folder}/raw/num-node-list.csv.gz     the number of nodes
  {folder}/raw/edge-feat.csv.gz         one line for each edge, if there are features of edges
  {folder}/split/<scheme>/train.csv.gz, valid.csv.gz, test.csv.gz     one node per line
without headers; each file may be without .gz{source}"""

OPTIONS = ("undirected", "split_scheme")
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
NUM_FIRST_LINES = 1000
RAW_FILES = ("edge", "node-feat", "node-label", "num-node-list")


def node_csv_reader(name: str, archive: str | None) -> Callable[..., dict[str, Dataset]]:
    """The reader of `name`; its official archive unpacks to the folder `archive`, None if `data_dir` is the folder."""
    if archive is None:
        layout = LAYOUT.format(folder="DATA_DIR", source=".")
    else:
        source = f"; of https://ogb.stanford.edu/docs/nodeprop (or DATA_DIR/{archive})."
        layout = LAYOUT.format(folder=f"DATA_DIR/{name}", source=source)

    def read(
        data_dir: str | os.PathLike[str] | None, undirected: bool = True, split_scheme: str | None = None
    ) -> dict[str, Dataset]:
        """Reads one row for each split: the same graph, whose `y` has the labels of the split's own nodes only.

        Args:
            data_dir: holds the folder of the set, or is it.
            undirected: whether the reverse of each edge is added, with the same features, if it is not there.
            split_scheme: the folder in `split`; may be None if there is one only.

        Raises:
            ValueError: for absent and damaged files, and options out of range.
        """
        if data_dir is None:
            raise ValueError(f"data_dir is needed for {name}; {layout}")
        folder = Path(data_dir) if archive is None else dataset_folder(name, data_dir, layout, archive)
        raw = [_table_file(folder / "raw", part, layout) for part in RAW_FILES]
        scheme = _scheme(folder / "split", split_scheme, layout)
        splits = [_table_file(scheme, part, layout) for part in SPLITS.values()]
        edge_features = [path for path in _candidates(folder / "raw", "edge-feat") if path.is_file()][:1]
        return _rows(name, [*raw, *splits, *edge_features], bool(undirected))

    return read


def _rows(name: str, files: list[Path], undirected: bool) -> dict[str, Dataset]:
    datasets = import_optional("datasets", "graphs")
    edge_features = [_width_and_type(path) for path in files[len(RAW_FILES) + len(SPLITS) :]]
    node_features = _width_and_type(files[1])
    labels = datasets.Sequence(datasets.ClassLabel(num_classes=int(_labels(files[2]).max()) + 1))
    features = graph_features(None, node_features, edge_features[0] if edge_features else None)
    columns = {split: f"y_{split}" for split in SPLITS}
    # The graph is stored once: the splits are views of it with another column of labels.
    graph = cached_rows(
        _generate,
        name,
        datasets.Features({**features, **dict.fromkeys(columns.values(), labels)}),
        files,
        undirected=undirected,
        types=tuple(dtype for _, dtype in (node_features, *edge_features)),
    )
    rows = {}
    for split, column in columns.items():
        others = [other for other in columns.values() if other != column]
        rows[split] = graph.remove_columns(others).rename_column(column, "y").with_format("numpy")
    return rows


def _generate(files: Sequence[Path], undirected: bool, types: Sequence[str]) -> Iterator[dict[str, Any]]:
    edge_path, feature_path, label_path, number_path = files[: len(RAW_FILES)]
    split_paths = files[len(RAW_FILES) : len(RAW_FILES) + len(SPLITS)]
    labels = _labels(label_path)
    num_nodes = len(labels)
    stated = _integers(number_path)
    if stated.size != 1:
        raise damaged(number_path, f"it has {stated.size} numbers; expected one, for one graph")
    if int(stated[0, 0]) != num_nodes:
        raise damaged(
            label_path, f"it has {num_nodes} lines; expected {stated[0, 0]}, the nodes of {number_path.name}"
        )
    node_feat = _features(feature_path, types[0])
    if len(node_feat) != num_nodes:
        raise damaged(feature_path, f"it has {len(node_feat)} lines; expected one for each of the {num_nodes} nodes")
    edges = _integers(edge_path)
    if edges.shape[1] != 2:
        raise damaged(edge_path, f"its lines have {edges.shape[1]} numbers; expected 2")
    _check_nodes(edge_path, edges, num_nodes)
    edge_index = edges.T
    edge_attr = None
    if len(files) > len(RAW_FILES) + len(SPLITS):
        edge_attr = _features(files[-1], types[1])
        if len(edge_attr) != edge_index.shape[1]:
            raise damaged(files[-1], f"it has {len(edge_attr)} lines; expected one for each of {len(edges)} edges")
    if undirected:
        added = _without_reverse(edge_index, num_nodes)
        edge_index = np.concatenate([edge_index, edge_index[::-1, added]], axis=1)
        edge_attr = None if edge_attr is None else np.concatenate([edge_attr, edge_attr[added]])
    row = {"num_nodes": num_nodes, "node_feat": node_feat, "edge_index": edge_index}
    if edge_attr is not None:
        row["edge_attr"] = edge_attr
    used = np.zeros(num_nodes, dtype=bool)
    for split, path in zip(SPLITS, split_paths):
        nodes = _integers(path).reshape(-1)
        _check_nodes(path, nodes, num_nodes)
        if used[nodes].any():
            raise damaged(path, f"node {nodes[np.argmax(used[nodes])]} is in another split as well")
        used[nodes] = True
        visible = np.full(num_nodes, IGNORED_LABEL, dtype=np.int64)
        visible[nodes] = labels[nodes]
        row[f"y_{split}"] = visible
    yield row


def _without_reverse(edge_index: NDArray[np.int64], num_nodes: int) -> NDArray[np.bool_]:
    """(E,) whether the reverse of an edge is absent; a loop is its own reverse."""
    sources, targets = edge_index
    return np.isin(targets * num_nodes + sources, sources * num_nodes + targets, invert=True)


def _labels(path: Path) -> NDArray[np.int64]:
    """(n,) classes, -100 where there is none."""
    # The number of columns is given, since the first line may be blank; a second one is none of a single class.
    numbers = _table(path, names=(0, 1), index_col=False).astype(np.float64)
    if not np.isnan(numbers[:, 1]).all():
        raise damaged(path, "its lines have 2 or more numbers; expected one class")
    column = numbers[:, 0]
    known = ~np.isnan(column)
    if not known.any():
        raise damaged(path, "it has no labels")
    if (column[known] < 0).any() or (column[known] % 1 != 0).any():
        raise damaged(path, "its labels are no classes counted from 0")
    return np.where(known, column, IGNORED_LABEL).astype(np.int64)


def _width_and_type(path: Path) -> tuple[int, str]:
    """Categories if the first numbers are integers: the whole file is read once only, with the rows."""
    numbers = _table(path, nrows=NUM_FIRST_LINES)
    return numbers.shape[1], "int64" if numbers.dtype == np.int64 else "float32"


def _features(path: Path, dtype: str) -> NDArray[Any]:
    numbers = _table(path)
    if not np.isfinite(numbers).all():
        raise damaged(path, "it holds numbers that are missing or not finite")
    if dtype == "int64" and numbers.dtype != np.int64:
        raise damaged(
            path,
            f"its first {NUM_FIRST_LINES} lines are integers (categories), but not all: write numbers as 1.0, not 1",
        )
    return numbers.astype(dtype)


def _integers(path: Path) -> NDArray[np.int64]:
    numbers = _table(path)
    if numbers.dtype != np.int64:
        raise damaged(path, "it holds something else than integers")
    return numbers


def _check_nodes(path: Path, nodes: NDArray[np.int64], num_nodes: int) -> None:
    if nodes.min() < 0 or nodes.max() >= num_nodes:
        raise damaged(path, f"it has nodes that are not between 0 and {num_nodes - 1}, the last node")


def _table(path: Path, **options: Any) -> NDArray[Any]:
    """(lines, numbers) int64 or float64, NaN where a field is empty; `options` are those of `pandas.read_csv`."""
    pandas = import_optional("pandas", "graphs")
    try:
        numbers = pandas.read_csv(path, header=None, skip_blank_lines=False, **options).to_numpy()
    # Damaged files raise the errors of pandas and of the decompression.
    except Exception as error:
        raise damaged(path, f"it cannot be read ({type(error).__name__}: {error})") from error
    if numbers.dtype.kind not in "iuf":
        raise damaged(path, "it holds something else than numbers")
    return numbers.astype(np.int64 if numbers.dtype.kind in "iu" else np.float64)


def _candidates(folder: Path, part: str) -> tuple[Path, Path]:
    return folder / f"{part}.csv.gz", folder / f"{part}.csv"


def _table_file(folder: Path, part: str, layout: str) -> Path:
    compressed, plain = _candidates(folder, part)
    return plain if plain.is_file() and not compressed.is_file() else existing_file(compressed, layout)


def _scheme(folder: Path, name: str | None, layout: str) -> Path:
    schemes = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if name is not None and name not in schemes:
        raise ValueError(f"split_scheme {name!r} is no folder in {folder} ({', '.join(schemes) or 'none'}); {layout}")
    if name is None and len(schemes) != 1:
        if schemes:
            raise ValueError(f"{folder} has {', '.join(schemes)}: name one of them as split_scheme.")
        raise ValueError(f"{folder} has no folder of a split; {layout}")
    return folder / (schemes[0] if name is None else name)
