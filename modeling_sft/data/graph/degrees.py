"""Degrees as features of nodes that have none."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def degree_features(edge_index: ArrayLike, num_nodes: int, max_degree: int) -> NDArray[np.int64]:
    """The number of edges that leave each node, as a category from 0 to `max_degree`.

    Args:
        edge_index: (2, E) integers from 0 to `num_nodes` - 1.
        num_nodes: n.
        max_degree: the largest category, which larger degrees get as well.

    Returns:
        (n, 1) int64.
    """
    sources = np.asarray(edge_index, dtype=np.int64).reshape(2, -1)[0]
    return np.minimum(np.bincount(sources, minlength=num_nodes), max_degree).astype(np.int64)[:, None]
