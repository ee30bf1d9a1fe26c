"""Molecules as graphs, with the features of the Open Graph Benchmark (OGB, arXiv 2005.00687)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hub.optional import import_optional

ATOM_FEATURE_SIZES = (119, 5, 12, 12, 10, 6, 6, 2, 2)
"""Categories of atomic number, chirality, degree, charge, hydrogens, radicals, hybridisation, aromatic and ring."""
BOND_FEATURE_SIZES = (5, 6, 2)
"""Categories of bond type, stereo and conjugated."""

CHIRALITIES = ("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER")
HYBRIDISATIONS = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
BOND_TYPES = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
_ATOM_COLUMNS = {"number": 0, "charge": 3, "hydrogens": 4, "radicals": 5, "aromatic": 7}
STEREOS = ("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY")


def smiles_to_graph(smiles: str) -> dict[str, Any]:
    """The graph of a molecule: atoms in the order of the SMILES, each bond in both directions, one after the other.

    Args:
        smiles: read by RDKit.

    Returns:
        `num_nodes`; `node_feat` (num_nodes, 9) int64, of `ATOM_FEATURE_SIZES` categories; `edge_index` (2, E) int64;
        `edge_attr` (E, 3) int64, of `BOND_FEATURE_SIZES` categories. The last category of atomic number to
        hybridisation, of the bond type and of stereo holds what has none of its own.

    Raises:
        ValueError: for what RDKit cannot parse, or a molecule without atoms.
        ImportError: if RDKit is not installed.
    """
    molecule = parse_smiles(smiles)
    if molecule is None:
        raise ValueError(f"smiles {smiles!r} cannot be parsed by RDKit, or has no atoms; correct it or leave it out.")
    return molecule_to_graph(molecule)


def parse_smiles(smiles: Any) -> Any:
    """The `rdkit.Chem.Mol`, or None if it is none or has no atoms; RDKit's own messages are kept back."""
    chem = import_optional("rdkit.Chem", "graphs")
    if not isinstance(smiles, str):
        return None
    with import_optional("rdkit.rdBase", "graphs").BlockLogs():
        molecule = chem.MolFromSmiles(smiles)
    return molecule if molecule is not None and molecule.GetNumAtoms() else None


def molecule_to_graph(molecule: Any) -> dict[str, Any]:
    """See `smiles_to_graph`, for a `rdkit.Chem.Mol`."""
    atoms = [
        (
            atom.GetAtomicNum() - 1 if 1 <= atom.GetAtomicNum() <= 118 else 118,
            _category(CHIRALITIES, str(atom.GetChiralTag())),
            min(atom.GetTotalDegree(), 11),
            atom.GetFormalCharge() + 5 if abs(atom.GetFormalCharge()) <= 5 else 11,
            min(atom.GetTotalNumHs(), 9),
            min(atom.GetNumRadicalElectrons(), 5),
            _category(HYBRIDISATIONS, str(atom.GetHybridization())),
            int(atom.GetIsAromatic()),
            int(atom.IsInRing()),
        )
        for atom in molecule.GetAtoms()
    ]
    pairs, features = [], []
    for bond in molecule.GetBonds():
        ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        pairs += [ends, ends[::-1]]
        feature = (
            _category(BOND_TYPES, str(bond.GetBondType())),
            min(_category(STEREOS, str(bond.GetStereo())), len(STEREOS) - 1),
            int(bond.GetIsConjugated()),
        )
        features += [feature, feature]
    return {
        "num_nodes": len(atoms),
        "node_feat": np.array(atoms, dtype=np.int64),
        "edge_index": np.array(pairs, dtype=np.int64).reshape(-1, 2).T,
        "edge_attr": np.array(features, dtype=np.int64).reshape(-1, 3),
    }


def graph_to_molecule(graph: Mapping[str, Any]) -> Any:
    """The `rdkit.Chem.Mol` of a graph with OGB's features, without stereo and isotopes.

    Args:
        graph: `node_feat` (n, 9), `edge_index` (2, E) with each bond in both directions and `edge_attr` (E, 3), as
            [`smiles_to_graph`] gives them.

    Raises:
        ValueError: if the features are not of these widths, or if RDKit finds no such molecule.
        ImportError: if RDKit is not installed.
    """
    chem = import_optional("rdkit.Chem", "graphs")
    atoms, bonds = np.asarray(graph["node_feat"]), np.asarray(graph["edge_attr"])
    for name, array, sizes in (("node_feat", atoms, ATOM_FEATURE_SIZES), ("edge_attr", bonds, BOND_FEATURE_SIZES)):
        if array.shape[1:] != (len(sizes),):
            raise ValueError(f"`{name}` has shape {array.shape}: molecules have {len(sizes)} columns, as OGB's.")
    molecule = chem.RWMol()
    unknown = ATOM_FEATURE_SIZES[0] - 1
    for features in atoms[:, list(_ATOM_COLUMNS.values())].tolist():
        number, charge, hydrogens, radicals, is_aromatic = features
        atom = chem.Atom(0 if number == unknown else number + 1)
        atom.SetFormalCharge(charge - 5)
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(hydrogens)
        atom.SetNumRadicalElectrons(radicals)
        atom.SetIsAromatic(bool(is_aromatic))
        molecule.AddAtom(atom)
    types = [*(getattr(chem.BondType, name) for name in BOND_TYPES), chem.BondType.DATIVE]
    for (first, second), kind in zip(np.asarray(graph["edge_index"]).T.tolist(), bonds[:, 0].tolist()):
        if first < second:
            molecule.AddBond(first, second, types[kind])
            molecule.GetBondBetweenAtoms(first, second).SetIsAromatic(types[kind] == chem.BondType.AROMATIC)
    molecule.UpdatePropertyCache(strict=False)
    flags = chem.SanitizeFlags
    chem.SanitizeMol(
        molecule, flags.SANITIZE_SYMMRINGS | flags.SANITIZE_SETCONJUGATION | flags.SANITIZE_SETHYBRIDIZATION
    )
    return molecule


def descriptor_names() -> tuple[str, ...]:
    """Names of RDKit's properties of whole molecules: masses, logP (Crippen), surfaces, counts of rings, ...

    Raises:
        ImportError: if RDKit is not installed.
    """
    properties = import_optional("rdkit.Chem.rdMolDescriptors", "graphs").Properties
    return tuple(properties.GetAvailableProperties())


def molecular_descriptors(molecule: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """Properties of a molecule by name, in RDKit's units: `(len(names),)`.

    Args:
        molecule: a `rdkit.Chem.Mol`.
        names: some of [`descriptor_names`].

    Raises:
        ValueError: a property is not finite.
        ImportError: if RDKit is not installed.
    """
    describe = import_optional("rdkit.Chem.rdMolDescriptors", "graphs").Properties(list(names))
    values = np.array(describe.ComputeProperties(molecule), dtype=np.float32)
    if not np.isfinite(values).all():
        broken = names[int(np.flatnonzero(~np.isfinite(values))[0])]
        raise ValueError(f"the descriptor {broken} is not finite for this molecule; leave it out of `descriptors`.")
    return values


def murcko_scaffold(molecule: Any) -> str:
    """The SMILES of the Bemis-Murcko scaffold, without chirality; "" for a molecule without rings."""
    scaffolds = import_optional("rdkit.Chem.Scaffolds.MurckoScaffold", "graphs")
    return str(scaffolds.MurckoScaffoldSmiles(mol=molecule, includeChirality=False))


def _category(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else len(names)
