"""One row from one mesh or cloud file of any known kind."""

import zlib
from typing import Any

import numpy as np

from ...point_cloud.files import load_point_cloud
from .rows import CloudFile


def read_cloud(file: CloudFile, num_mesh_points: int) -> dict[str, Any]:
    """Reads a file with `load_point_cloud`.

    Args:
        file: a mesh or a cloud.
        num_mesh_points: points drawn from a mesh, always the same ones for files of the same name.

    Returns:
        `points` (n, 3) and `normals` (n, 3), float32; `normals` is None if the file has none.

    Raises:
        ValueError: for a file that cannot be read; the message names it.
    """
    seed = zlib.crc32(file.path.name.encode())
    cloud = load_point_cloud(file.path, num_mesh_points=num_mesh_points, seed=seed)
    normals = cloud.get("normals")
    return {
        "points": cloud["points"].astype(np.float32),
        "normals": None if normals is None else normals.astype(np.float32),
    }
