"""Which graph data sets can be read, and with which options: files of one's own, and what others add."""

from ..registry import ReaderEntry
from .node_csv import OPTIONS as NODE_OPTIONS
from .node_csv import node_csv_reader
from .smiles_files import OPTIONS as SMILES_OPTIONS
from .smiles_files import read_smiles_files, smiles_target_names

GRAPH_READERS: dict[str, ReaderEntry] = {
    "node_csv": ReaderEntry(node_csv_reader("node_csv", None), NODE_OPTIONS),
    "ogbn_arxiv": ReaderEntry(node_csv_reader("ogbn_arxiv", "arxiv"), NODE_OPTIONS),
    "ogbn_products": ReaderEntry(node_csv_reader("ogbn_products", "products"), NODE_OPTIONS),
    "smiles_files": ReaderEntry(read_smiles_files, SMILES_OPTIONS, smiles_target_names, is_molecular=True),
}
