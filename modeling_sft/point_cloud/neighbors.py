"""Nearest neighbours and farthest points within one cloud."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def nearest_neighbors(points: NDArray[Any], num_neighbors: int) -> NDArray[np.int64]:
    """The k nearest other points of each point, by a KD-tree: O(n log n) time, O(n k) memory.

    Args:
        points: (n, 3) finite coordinates.
        num_neighbors: k, at least 1.

    Returns:
        (n, k) int64. Row i lists the nearest points other than i by increasing distance; a point at the same place as
        i is another point. With fewer than k others the rest is i itself, which means "no neighbour".
    """
    num_points = len(points)
    num_found = min(num_neighbors, num_points - 1)
    own_index = np.arange(num_points)[:, None]
    if num_found == 0:
        return np.repeat(own_index, num_neighbors, axis=1)
    found = kd_tree(points).query(points, k=num_found + 1)[1]
    is_own = found == own_index
    # Among many coinciding points a query may miss the point itself: then its last answer is the one too many.
    is_own[~is_own.any(axis=1), -1] = True
    neighbors = found[~is_own].reshape(num_points, num_found)
    fill = np.repeat(own_index, num_neighbors - num_found, axis=1)
    return np.concatenate([neighbors, fill], axis=1).astype(np.int64, copy=False)


def farthest_points(points: NDArray[Any], num_points: int) -> NDArray[np.int64]:
    """Farthest point sampling (Gonzalez 1985; Eldar et al. 1997): O(n m) time, O(n) memory.

    The first point is the one farthest from the centroid, each next one the farthest from those already taken; among
    equally far ones the lowest index. Only distances decide, so that a rotated or shifted copy of the cloud keeps the
    same points, except where rounding decides between equal distances.

    Args:
        points: (n, 3) finite coordinates.
        num_points: m, from 1 to n.

    Returns:
        (m,) int64 distinct indices, in the order in which they were taken.
    """
    coordinates = np.asarray(points, dtype=np.float64)
    coordinates = coordinates - coordinates.mean(axis=0)
    coordinates /= np.abs(coordinates).max() or 1.0
    # One row per axis: sums over three short columns are slower.
    axes = np.ascontiguousarray(coordinates.T)
    chosen = np.empty(num_points, dtype=np.int64)
    squared = np.einsum("cn,cn->n", axes, axes)
    nearest = np.full(len(coordinates), np.inf)
    for step in range(num_points):
        index = int(np.argmax(nearest if step else squared))
        chosen[step] = index
        offsets = axes - axes[:, index, None]
        np.minimum(nearest, np.einsum("cn,cn->n", offsets, offsets), out=nearest)
        # Below every distance: coinciding points are taken once each.
        nearest[index] = -1.0
    return chosen


def kd_tree(points: NDArray[Any]) -> Any:
    """SciPy's KD-tree of the points.

    Raises:
        ImportError: without SciPy.
    """
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise ImportError(
            'Neighbours and normals of point clouds need SciPy: pip install "modeling-sft[pointclouds]".'
        ) from error
    return cKDTree(points)
