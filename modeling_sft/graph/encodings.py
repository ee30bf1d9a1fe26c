"""Encodings of the nodes of a graph by its structure: random walks and eigenvectors of the Laplacian."""

import inspect
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..hub.optional import import_optional

# Up to this size dense products and solvers are used.
_DENSE_WALK_NODES = 100
_DENSE_EIGEN_NODES = 1000
_COLUMNS_AT_ONCE = 128


def random_walk_encodings(edge_index: ArrayLike, num_nodes: int, num_steps: int) -> NDArray[np.float32]:
    """The probabilities that a random walk is back where it began after 1, 2, ... steps (arXiv 2110.07875).

    The graph counts as undirected: an edge leads both ways, whichever directions are given, and duplicates count once.
    A self-loop is one more edge to choose. A node without edges has probability 0 throughout.

    Args:
        edge_index: (2, E) integers from 0 to `num_nodes` - 1.
        num_nodes: n, at least 1.
        num_steps: k, at least 0.

    Returns:
        (n, k) float32, computed in float64; above 100 nodes in memory of the order of n and E.

    Raises:
        ValueError: for numbers out of range.
        ImportError: above 100 nodes, if SciPy is not installed.
    """
    edges = _undirected(edge_index, num_nodes, "num_steps", num_steps)
    if num_nodes <= _DENSE_WALK_NODES:
        matrix: Any = np.zeros((num_nodes, num_nodes))
        matrix[edges[0], edges[1]] = _weights(edges, num_nodes)
        return _return_probabilities(matrix, np.eye(num_nodes), num_steps).astype(np.float32)
    matrix = _normalized_adjacency(edges, num_nodes)
    encodings = np.empty((num_nodes, num_steps), dtype=np.float32)
    # Powers of a sparse matrix fill up; some of their columns at a time stay small.
    for start in range(0, num_nodes, _COLUMNS_AT_ONCE):
        own = np.arange(start, min(start + _COLUMNS_AT_ONCE, num_nodes))
        columns = np.zeros((num_nodes, len(own)))
        columns[own, own - start] = 1.0
        encodings[own] = _return_probabilities(matrix, columns, num_steps)
    return encodings


def laplacian_encodings(edge_index: ArrayLike, num_nodes: int, num_vectors: int) -> NDArray[np.float32]:
    """Eigenvectors of the symmetric normalised Laplacian, of its smallest eigenvalues above 0 (arXiv 2003.00982).

    The graph counts as undirected, as in `random_walk_encodings`. Every connected component has one eigenvalue 0,
    which is left out; eigenvectors are those of the components, 0 outside their own.

    The sign of an eigenvector is arbitrary. Here the sum of its cubes is positive, whatever the order of the nodes; if
    it vanishes, as symmetries of the graph may force it to, its first entry that is not 0 is positive. Models should
    be trained with random signs, see `flip_signs`. Of eigenvalues that coincide, the basis is arbitrary as well,
    though the same in each call (above 1000 nodes, from SciPy 1.17 on).

    Args:
        edge_index: (2, E) integers from 0 to `num_nodes` - 1.
        num_nodes: n, at least 1.
        num_vectors: k, at least 0.

    Returns:
        (n, k) float32: columns of unit length, by ascending eigenvalue, then columns of 0 where there are no more. A
        component of more than 1000 nodes is never made a dense matrix, unless k is as large.

    Raises:
        ValueError: for numbers out of range.
        ImportError: if SciPy is not installed.
    """
    edges = _undirected(edge_index, num_nodes, "num_vectors", num_vectors)
    encodings = np.zeros((num_nodes, num_vectors), dtype=np.float32)
    if num_vectors == 0:
        return encodings
    matrix = _normalized_adjacency(edges, num_nodes)
    _, component = import_optional("scipy.sparse.csgraph", "graphs").connected_components(matrix, directed=False)
    order = np.argsort(component, kind="stable")
    found: list[tuple[float, NDArray[np.int64], NDArray[np.float64]]] = []
    for members in np.split(order, np.cumsum(np.bincount(component))[:-1]):
        if len(members) > 1:
            part = matrix if len(members) == num_nodes else matrix[members][:, members]
            values, vectors = _largest_below_one(part, num_vectors)
            found += [(value, members, vector) for value, vector in zip(values, vectors.T)]
    # Rounding must not decide the order of components whose eigenvalues are equal.
    found.sort(key=lambda entry: -round(entry[0], 9))
    for column, (_, members, vector) in enumerate(found[:num_vectors]):
        encodings[members, column] = _with_sign(vector)
    return encodings


def flip_signs(encodings: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Multiplies each column by 1 or -1, at random: training with it makes a model indifferent to the signs.

    Args:
        encodings: (n, k), as from `laplacian_encodings`.
        rng: the source of randomness.

    Returns:
        (n, k) of the same type; the argument is left as it is.
    """
    signs = rng.integers(0, 2, encodings.shape[1]) * 2 - 1
    return encodings * signs.astype(encodings.dtype)


def _undirected(edge_index: ArrayLike, num_nodes: int, name: str, count: int) -> NDArray[np.int64]:
    """All edges (2, E') in both directions, each once, in ascending order."""
    if num_nodes < 1:
        raise ValueError(f"num_nodes must be at least 1; got {num_nodes}. Leave empty graphs out.")
    if count < 0:
        raise ValueError(f"{name} must be at least 0; got {count}.")
    edges = np.asarray(edge_index)
    if edges.size == 0:
        return np.empty((2, 0), dtype=np.int64)
    if edges.ndim != 2 or len(edges) != 2 or edges.dtype.kind not in "iu":
        raise ValueError(f"edge_index has shape {edges.shape} and type {edges.dtype}; expected (2, E) of integers.")
    if edges.min() < 0 or edges.max() >= num_nodes:
        raise ValueError(f"edge_index must be between 0 and {num_nodes - 1}; got {edges.min()} to {edges.max()}.")
    sources, targets = edges.astype(np.int64)
    numbers = np.unique(np.concatenate([sources * num_nodes + targets, targets * num_nodes + sources]))
    return np.stack(np.divmod(numbers, num_nodes))


def _weights(edges: NDArray[np.int64], num_nodes: int) -> NDArray[np.float64]:
    """The entries of D^-1/2 A D^-1/2, whose powers have the same diagonal as those of the transition matrix."""
    degrees = np.bincount(edges[0], minlength=num_nodes).astype(np.float64)
    return (degrees[edges[0]] * degrees[edges[1]]) ** -0.5


def _normalized_adjacency(edges: NDArray[np.int64], num_nodes: int) -> Any:
    sparse = import_optional("scipy.sparse", "graphs")
    starts = np.concatenate([[0], np.cumsum(np.bincount(edges[0], minlength=num_nodes))])
    return sparse.csr_array((_weights(edges, num_nodes), edges[1], starts), shape=(num_nodes, num_nodes))


def _return_probabilities(matrix: Any, columns: NDArray[np.float64], num_steps: int) -> NDArray[np.float64]:
    """(columns, num_steps): diagonal entries of the powers of a symmetric matrix M, for unit vectors x as columns."""
    probabilities = np.empty((columns.shape[1], num_steps))
    # x' M^2s x = |M^s x|^2 saves half of the products.
    for step in range(0, num_steps, 2):
        following = matrix @ columns
        probabilities[:, step] = np.einsum("ij,ij->j", columns, following)
        if step + 1 < num_steps:
            probabilities[:, step + 1] = np.einsum("ij,ij->j", following, following)
        columns = following
    return probabilities


def _largest_below_one(matrix: Any, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest eigenvalues, descending, of a connected graph's normalised adjacency, without the largest, 1."""
    size = matrix.shape[0]
    count = min(count, size - 1)
    if size <= _DENSE_EIGEN_NODES or count + 2 > size:
        values, vectors = np.linalg.eigh(matrix.toarray())
    else:
        values, vectors = _sparse_eigenvectors(matrix, count + 1)
    order = np.argsort(-values, kind="stable")[1 : count + 1]
    return values[order], vectors[:, order]


def _sparse_eigenvectors(matrix: Any, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    linalg = import_optional("scipy.sparse.linalg", "graphs")
    size = matrix.shape[0]
    # By default the start is random, and so is what ARPACK adds where the graph's symmetry stops it early.
    options: dict[str, Any] = {"v0": np.random.default_rng(0).normal(size=size)}
    if "rng" in inspect.signature(linalg.eigsh).parameters:
        options["rng"] = np.random.default_rng(0)
    num_lanczos_vectors = min(size, max(60, 3 * count))
    try:
        return linalg.eigsh(matrix, count, which="LA", ncv=num_lanczos_vectors, maxiter=40, **options)
    except linalg.ArpackNoConvergence:
        # Long, thin graphs, whose eigenvalues crowd near 1, and whose factors stay sparse.
        return linalg.eigsh(matrix.tocsc(), count, sigma=1.01, which="LM", **options)


def _with_sign(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    cubes = vector**3
    total = cubes.sum()
    if abs(total) <= 1e-6 * np.abs(cubes).sum():
        total = vector[np.flatnonzero(np.abs(vector) > 1e-6 * np.abs(vector).max())[0]]
    return -vector if total < 0 else vector
