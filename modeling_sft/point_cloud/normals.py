"""Estimated normals: least-variance directions, oriented consistently and outward."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .neighbors import kd_tree

NORMAL_ESTIMATION_NEIGHBORS = 16


def estimate_normals(points: NDArray[Any]) -> NDArray[np.float64]:
    """Unit normals: the direction of least variance among each point and its 16 nearest neighbours.

    Signs are made consistent along the minimum spanning tree of the neighbour graph with the weights
    1 - |n_i . n_j| (Hoppe et al., "Surface reconstruction from unorganized points", SIGGRAPH 1992, section 3.3). Then
    each connected part of the graph is turned as a whole so that the volume that it encloses is positive, by the
    divergence theorem: the sum of a_i n_i . (x_i - c), with c the mean of the part and a_i the squared distance to the
    farthest of the neighbours, which is proportional to the area that point i stands for.

    That is outward for closed surfaces, however concave. Signs can be wrong where two sheets are nearer to each other
    than neighbours within a sheet. Where the neighbourhood is a line or a single place, or a part is flat, direction
    or sign are arbitrary.

    Args:
        points: (n, 3) finite coordinates.

    Returns:
        (n, 3) float64 unit vectors.

    Raises:
        ImportError: without SciPy.
    """
    points = np.asarray(points, dtype=np.float64)
    points = points - points.mean(axis=0)
    points = points / (np.abs(points).max() or 1.0)
    neighborhood_size = min(NORMAL_ESTIMATION_NEIGHBORS + 1, len(points))
    distances, neighborhoods = kd_tree(points).query(points, k=range(1, neighborhood_size + 1))
    offsets = points[neighborhoods] - points[:, None]
    offsets = offsets - offsets.mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(offsets.swapaxes(1, 2) @ offsets)[1][:, :, 0]
    return normals * _signs(points, normals, neighborhoods, distances[:, -1] ** 2)[:, None]


def _signs(
    points: NDArray[np.float64], normals: NDArray[np.float64], neighborhoods: NDArray[Any], areas: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) of 1 and -1, by which to multiply the normals."""
    try:
        from scipy.sparse import coo_matrix, csr_matrix
        from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
    except ImportError as error:
        raise ImportError('Normals of point clouds need SciPy: pip install "modeling-sft[pointclouds]".') from error

    num_points, neighborhood_size = neighborhoods.shape
    # 1 more than in the paper, which changes no tree, because a sparse matrix has no edges of weight 0; rounded, so
    # that the many equal weights of a flat face stay equal when the cloud is rotated. A point's edge to itself joins
    # nothing.
    weights = np.round(2.0 - np.abs(np.einsum("ij,ikj->ik", normals, normals[neighborhoods])), 6)
    row_starts = np.arange(0, num_points * neighborhood_size + 1, neighborhood_size)
    graph = csr_matrix((weights.ravel(), neighborhoods.ravel(), row_starts), shape=(num_points, num_points))
    tree = minimum_spanning_tree(graph).tocoo()
    num_parts, part = connected_components(tree, directed=False)

    # One more node joins the parts, so that one traversal reaches all of them.
    first_of_part = np.unique(part, return_index=True)[1]
    start = np.concatenate([tree.row, np.full(num_parts, num_points)])
    end = np.concatenate([tree.col, first_of_part])
    joined = coo_matrix((np.ones(len(start)), (start, end)), shape=(num_points + 1, num_points + 1)).tocsr()
    parent = breadth_first_order(joined, num_points, directed=False)[1].astype(np.int64)
    parent[num_points] = num_points

    inner = np.flatnonzero(parent[:num_points] != num_points)
    signs = np.ones(num_points + 1)
    agreement = np.einsum("ij,ij->i", normals[inner], normals[parent[inner]])
    signs[inner] = np.where(agreement < 0, -1.0, 1.0)
    # Each round doubles the length of the path to the root whose signs are multiplied.
    while (parent != num_points).any():
        signs = signs * signs[parent]
        parent = parent[parent]
    signs = signs[:num_points]

    sizes = np.bincount(part)
    centers = np.stack([np.bincount(part, weights=axis) for axis in points.T], axis=1) / sizes[:, None]
    heights = np.einsum("ij,ij->i", normals, points - centers[part])
    volumes = np.bincount(part, weights=areas * signs * heights)
    return np.where(volumes[part] < 0, -signs, signs)
