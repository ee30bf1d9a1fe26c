"""Which graph data sets can be read, and with which options."""

from __future__ import annotations

from ..registry import ReaderEntry
from .lrgb import OPTIONS as LRGB_OPTIONS
from .lrgb import lrgb_reader
from .moleculenet import OPTIONS as MOLECULENET_OPTIONS
from .moleculenet import moleculenet_reader, tox21_target_names
from .node_csv import OPTIONS as NODE_OPTIONS
from .node_csv import node_csv_reader
from .peptides_func import peptides_func_target_names, read_peptides_func
from .smiles_files import OPTIONS as SMILES_OPTIONS
from .smiles_files import read_smiles_files, smiles_target_names
from .tudatasets import OPTIONS as TU_OPTIONS
from .tudatasets import tu_reader

GRAPH_READERS: dict[str, ReaderEntry] = {
    "coco_sp": ReaderEntry(lrgb_reader("coco_sp"), LRGB_OPTIONS),
    "enzymes": ReaderEntry(tu_reader("ENZYMES"), TU_OPTIONS),
    "esol": ReaderEntry(moleculenet_reader("esol"), MOLECULENET_OPTIONS),
    "hiv": ReaderEntry(moleculenet_reader("hiv"), MOLECULENET_OPTIONS),
    "imdb_binary": ReaderEntry(tu_reader("IMDB-BINARY"), TU_OPTIONS),
    "lrgb_peptides_func": ReaderEntry(lrgb_reader("lrgb_peptides_func"), LRGB_OPTIONS, peptides_func_target_names),
    "lrgb_peptides_struct": ReaderEntry(lrgb_reader("lrgb_peptides_struct"), LRGB_OPTIONS),
    "mutag": ReaderEntry(tu_reader("MUTAG"), TU_OPTIONS),
    "nci1": ReaderEntry(tu_reader("NCI1"), TU_OPTIONS),
    "node_csv": ReaderEntry(node_csv_reader("node_csv", None), NODE_OPTIONS),
    "ogbn_arxiv": ReaderEntry(node_csv_reader("ogbn_arxiv", "arxiv"), NODE_OPTIONS),
    "ogbn_products": ReaderEntry(node_csv_reader("ogbn_products", "products"), NODE_OPTIONS),
    "pascalvoc_sp": ReaderEntry(lrgb_reader("pascalvoc_sp"), LRGB_OPTIONS),
    "pcqm_contact": ReaderEntry(lrgb_reader("pcqm_contact"), LRGB_OPTIONS),
    "peptides_func": ReaderEntry(read_peptides_func, target_names=peptides_func_target_names),
    "proteins": ReaderEntry(tu_reader("PROTEINS"), TU_OPTIONS),
    "smiles_files": ReaderEntry(read_smiles_files, SMILES_OPTIONS, smiles_target_names),
    "tox21": ReaderEntry(moleculenet_reader("tox21"), MOLECULENET_OPTIONS, tox21_target_names),
}

# Sets of molecules, whose features are those of OGB.
MOLECULE_READERS = frozenset(
    ("esol", "hiv", "lrgb_peptides_func", "lrgb_peptides_struct", "peptides_func", "smiles_files", "tox21")
)
