"""Structural encodings of nodes against dense references."""

import inspect

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from modeling_sft.graph.encodings import flip_signs, laplacian_encodings, random_walk_encodings

EDGELESS = np.empty((2, 0), dtype=np.int64)


def random_edges(num_nodes, num_edges, seed):
    return np.random.default_rng(seed).integers(0, num_nodes, (2, num_edges))


def adjacency(edges, num_nodes):
    graph = nx.Graph()
    graph.add_nodes_from(range(num_nodes))
    graph.add_edges_from(edges.T.tolist())
    return nx.to_numpy_array(graph, nodelist=range(num_nodes))


def expected_walks(edges, num_nodes, num_steps):
    matrix = adjacency(edges, num_nodes)
    transition = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    powers = [np.linalg.matrix_power(transition, step) for step in range(1, num_steps + 1)]
    return np.stack([power.diagonal() for power in powers], axis=1)


def laplacian(edges, num_nodes):
    graph = nx.from_numpy_array(adjacency(edges, num_nodes))
    return nx.normalized_laplacian_matrix(graph, weight=None).toarray(), nx.number_connected_components(graph)


def check_eigenvectors(edges, num_nodes, vectors):
    """The columns are orthonormal eigenvectors, of the smallest eigenvalues after those of the components."""
    matrix, num_components = laplacian(edges, num_nodes)
    wanted = np.linalg.eigvalsh(matrix)[num_components:][: vectors.shape[1]]
    found, padding = vectors[:, : len(wanted)].astype(np.float64), vectors[:, len(wanted) :]
    assert not padding.any()
    np.testing.assert_allclose(found.T @ found, np.eye(len(wanted)), atol=2e-6)
    np.testing.assert_allclose(matrix @ found, found * wanted, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(
    num_nodes=st.sampled_from([1, 2, 3, 7, 17, 40, 101]),
    density=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    num_steps=st.sampled_from([0, 1, 2, 5, 8]),
    num_vectors=st.sampled_from([0, 1, 4, 9]),
    seed=st.integers(0, 1000),
)
def test_encodings_agree_with_dense_references(num_nodes, density, num_steps, num_vectors, seed):
    edges = random_edges(num_nodes, int(density * num_nodes), seed)
    walks = random_walk_encodings(edges, num_nodes, num_steps)
    assert walks.dtype == np.float32 and walks.shape == (num_nodes, num_steps)
    if num_steps:
        np.testing.assert_allclose(walks, expected_walks(edges, num_nodes, num_steps), atol=1e-7)
    vectors = laplacian_encodings(edges, num_nodes, num_vectors)
    assert vectors.dtype == np.float32 and vectors.shape == (num_nodes, num_vectors)
    check_eigenvectors(edges, num_nodes, vectors)
    np.testing.assert_array_equal(vectors, laplacian_encodings(edges, num_nodes, num_vectors))


@pytest.mark.parametrize("num_nodes", [100, 101, 128, 129, 257])
def test_the_change_of_method_shows_nowhere(num_nodes):
    edges = np.array(nx.random_labeled_tree(num_nodes, seed=1).edges).T
    walks = random_walk_encodings(edges, num_nodes, 7)
    np.testing.assert_allclose(walks, expected_walks(edges, num_nodes, 7), atol=1e-7)


def test_directions_duplicates_and_loops():
    once = np.array([[0, 1, 2], [1, 2, 2]])
    for same in (
        once[::-1],
        np.concatenate([once, once], axis=1),
        np.concatenate([once, once[::-1, :2]], axis=1),
        once.tolist(),
        once.astype(np.int32),
    ):
        np.testing.assert_array_equal(random_walk_encodings(same, 4, 3), random_walk_encodings(once, 4, 3))
        np.testing.assert_array_equal(laplacian_encodings(same, 4, 3), laplacian_encodings(once, 4, 3))
    # Node 2 stays by its loop or goes to node 1; node 3 has no edge.
    walks = random_walk_encodings(once, 4, 2)
    np.testing.assert_allclose(walks, [[0, 0.5], [0, 0.75], [0.5, 0.5], [0, 0]])


@pytest.mark.parametrize("num_nodes", [1, 5])
def test_graphs_without_edges_have_encodings_of_zero(num_nodes):
    for edges in (EDGELESS, [[], []], []):
        assert not random_walk_encodings(edges, num_nodes, 3).any()
        assert not laplacian_encodings(edges, num_nodes, 3).any()
    loops = np.zeros((2, 1), dtype=np.int64)
    assert random_walk_encodings(loops, num_nodes, 3)[0].tolist() == [1, 1, 1]
    assert not laplacian_encodings(loops, num_nodes, 3).any()


def large_graphs():
    yield "path", nx.path_graph(1500)
    yield "star", nx.star_graph(1100)
    yield "scale-free", nx.barabasi_albert_graph(1201, 2, seed=0)
    yield "components", nx.disjoint_union(nx.path_graph(1001), nx.star_graph(6))


@pytest.mark.parametrize(
    ("name", "graph"), list(large_graphs()), ids=lambda value: value if type(value) is str else ""
)
def test_large_graphs_never_become_dense(name, graph, monkeypatch):
    edges, num_nodes = np.array(graph.edges).T, len(graph)
    eigh = np.linalg.eigh

    def checked(matrix):
        assert len(matrix) <= 1000
        return eigh(matrix)

    monkeypatch.setattr(np.linalg, "eigh", checked)
    vectors = laplacian_encodings(edges, num_nodes, 5).astype(np.float64)
    matrix = nx.normalized_laplacian_matrix(graph, nodelist=range(num_nodes))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=2e-6)
    values = (vectors * (matrix @ vectors)).sum(0)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=2e-6)
    if name == "path":
        wanted = 1 - np.cos(np.pi * np.arange(1, 6) / 1499)
    elif name == "star":
        wanted = np.ones(5)
    else:
        monkeypatch.undo()
        wanted = np.linalg.eigvalsh(matrix.toarray())[nx.number_connected_components(graph) :][:5]
    np.testing.assert_allclose(values, wanted, atol=1e-6)
    if name != "star" or "rng" in inspect.signature(eigsh).parameters:
        np.testing.assert_array_equal(vectors, laplacian_encodings(edges, num_nodes, 5))
    walks = random_walk_encodings(edges, num_nodes, 2)
    degrees = np.array([graph.degree(node) for node in range(num_nodes)])
    returns = [sum(1 / degrees[other] for other in graph[node]) / degrees[node] for node in range(num_nodes)]
    np.testing.assert_allclose(walks, np.stack([np.zeros(num_nodes), returns], axis=1), atol=1e-7)


def test_signs_do_not_depend_on_the_order_of_nodes():
    num_nodes = 23
    edges = random_edges(num_nodes, 40, seed=5)
    values = np.linalg.eigvalsh(laplacian(edges, num_nodes)[0])
    assert np.diff(values).min() > 1e-6  # else the basis were arbitrary
    vectors = laplacian_encodings(edges, num_nodes, 8)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(num_nodes)
        moved = laplacian_encodings(np.argsort(order)[edges], num_nodes, 8)
        np.testing.assert_allclose(moved, vectors[order], atol=1e-5)
    # An antisymmetric eigenvector has no sign of its own: the first node decides.
    assert laplacian_encodings([[0, 1], [1, 2]], 3, 1)[0, 0] > 0.5


def test_flips_change_whole_columns():
    vectors = laplacian_encodings(random_edges(9, 20, seed=0), 9, 6)
    before = vectors.copy()
    flips = [flip_signs(vectors, np.random.default_rng(seed)) for seed in range(40)]
    np.testing.assert_array_equal(vectors, before)
    signs = np.stack([(flipped * vectors).sum(0) for flipped in flips])
    for flipped in flips:
        assert flipped.dtype == np.float32
        np.testing.assert_array_equal(np.abs(flipped), np.abs(vectors))
    np.testing.assert_allclose(np.abs(signs), 1, atol=1e-5)
    assert (np.abs((signs > 0).mean(0) - 0.5) < 0.3).all() and len({tuple(row > 0) for row in signs}) > 15
    np.testing.assert_array_equal(flips[3], flip_signs(vectors, np.random.default_rng(3)))


@pytest.mark.parametrize("function", [random_walk_encodings, laplacian_encodings])
@pytest.mark.parametrize(
    ("edges", "num_nodes", "count", "message"),
    [
        ([[0], [3]], 3, 2, "edge_index must be between 0 and 2"),
        ([[-1], [0]], 3, 2, "edge_index must be between 0 and 2"),
        ([[0, 1]], 3, 2, "edge_index has shape"),
        ([[0.0], [1.0]], 3, 2, "edge_index has shape .* of integers"),
        (EDGELESS, 0, 2, "num_nodes must be at least 1"),
        (EDGELESS, 3, -1, "num_(steps|vectors) must be at least 0"),
    ],
)
def test_bad_arguments_are_named(function, edges, num_nodes, count, message):
    with pytest.raises(ValueError, match=message):
        function(edges, num_nodes, count)
