"""Which data sets can be read, and with which options."""

from __future__ import annotations

from ..registry import ReaderEntry
from .digits import read_digits
from .folder import read_folder
from .modelnet import read_modelnet10_vox
from .modelnet_hdf5 import read_modelnet40_hdf5
from .modelnet_meshes import read_modelnet10, read_modelnet40
from .modelnet_resampled import read_modelnet40_resampled
from .primitives import read_primitives
from .scanobjectnn import read_scanobjectnn
from .shapenetpart import read_shapenetpart
from .shrec16 import read_shrec16

READERS: dict[str, ReaderEntry] = {
    "digits": ReaderEntry(read_digits),
    "folder": ReaderEntry(read_folder, ("num_mesh_points", "test_fraction")),
    "modelnet10": ReaderEntry(read_modelnet10, ("num_mesh_points",)),
    "modelnet10_vox": ReaderEntry(read_modelnet10_vox),
    "modelnet40": ReaderEntry(read_modelnet40, ("num_mesh_points",)),
    "modelnet40_normal_resampled": ReaderEntry(read_modelnet40_resampled, ("num_classes",)),
    "modelnet40_ply_hdf5_2048": ReaderEntry(read_modelnet40_hdf5),
    "primitives": ReaderEntry(read_primitives, ("num_train", "num_test")),
    "scanobjectnn": ReaderEntry(read_scanobjectnn, ("variant",)),
    "shapenetpart": ReaderEntry(read_shapenetpart, ("layout",)),
    "shrec16": ReaderEntry(read_shrec16),
}
