"""Molecules become graphs with the features of OGB."""

import pytest

from modeling_sft.graph.molecules import ATOM_FEATURE_SIZES, BOND_FEATURE_SIZES, smiles_to_graph


@pytest.fixture(autouse=True)
def rdkit():
    pytest.importorskip("rdkit")


def test_features_by_hand():
    graph = smiles_to_graph("C=O")
    # Atomic number - 1, chirality, degree, charge + 5, hydrogens, radicals, SP2, aromatic, ring.
    assert graph["node_feat"].tolist() == [[5, 0, 3, 5, 2, 0, 1, 0, 0], [7, 0, 1, 5, 0, 0, 1, 0, 0]]
    assert graph["edge_index"].tolist() == [[0, 1], [1, 0]] and graph["edge_attr"].tolist() == [[1, 0, 0]] * 2
    alone = smiles_to_graph("[Na+]")
    assert alone["edge_index"].shape == (2, 0) and alone["edge_attr"].shape == (0, 3)
    assert alone["node_feat"][0, [0, 3]].tolist() == [10, 6]
    ring = smiles_to_graph("c1ccccc1")
    assert (ring["node_feat"][:, 7:] == 1).all() and (ring["edge_attr"] == [3, 0, 1]).all()


def test_features_stay_in_their_vocabularies():
    for smiles in ("*", "[Fe+6]", "F/C=C/F", "N[C@@H](C)C(=O)O", "[NH3]->[Cu]", "[Xe]", "F[P](F)(F)(F)F"):
        graph = smiles_to_graph(smiles)
        assert (graph["node_feat"] < ATOM_FEATURE_SIZES).all() and (graph["node_feat"] >= 0).all()
        assert (graph["edge_attr"] < BOND_FEATURE_SIZES).all()


@pytest.mark.parametrize("smiles", ["C(", "c1ccc1C(C)(C)(C)(C)C", "", None])
def test_what_is_no_molecule_is_named(smiles):
    with pytest.raises(ValueError, match="smiles .* cannot be parsed") as error:
        smiles_to_graph(smiles)
    assert repr(smiles) in str(error.value)
