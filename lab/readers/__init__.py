"""Readers of benchmark data sets, one module per source; importing this package registers their names."""

from modeling_sft.data.graph.readers import GRAPH_READERS
from modeling_sft.data.point_cloud.readers import READERS
from modeling_sft.data.registry import ReaderEntry
from modeling_sft.data.sequence.readers import SEQUENCE_READERS

from .graph.lrgb import OPTIONS as LRGB_OPTIONS
from .graph.lrgb import lrgb_reader
from .graph.moleculenet import OPTIONS as MOLECULENET_OPTIONS
from .graph.moleculenet import moleculenet_reader, tox21_target_names
from .graph.peptides_func import peptides_func_target_names, read_peptides_func
from .graph.tudatasets import OPTIONS as TU_OPTIONS
from .graph.tudatasets import tu_reader
from .point_cloud.modelnet import read_modelnet10_vox
from .point_cloud.modelnet_hdf5 import read_modelnet40_hdf5
from .point_cloud.modelnet_meshes import read_modelnet10, read_modelnet40
from .point_cloud.modelnet_resampled import read_modelnet40_resampled
from .point_cloud.primitives import read_primitives
from .point_cloud.scanobjectnn import read_scanobjectnn
from .point_cloud.shapenetpart import read_shapenetpart
from .point_cloud.shrec16 import read_shrec16
from .sequence.aan import read_aan
from .sequence.images import read_cifar10, read_cifar10_gray, read_mnist
from .sequence.imdb import read_imdb
from .sequence.list_ops import OPTIONS as LIST_OPS_OPTIONS
from .sequence.list_ops import read_list_ops, read_lra_list_ops
from .sequence.pathfinder import read_pathfinder32, read_pathx

SEQUENCE_READERS |= {
    "aan": ReaderEntry(read_aan),
    "cifar10": ReaderEntry(read_cifar10),
    "cifar10_gray": ReaderEntry(read_cifar10_gray, license="none stated; for research (Krizhevsky, 2009)"),
    "imdb": ReaderEntry(
        read_imdb,
        ("max_bytes",),
        license="none stated; reviews belong to their authors, for research (Maas et al., 2011)",
    ),
    "listops": ReaderEntry(read_list_ops),
    "lra_listops": ReaderEntry(
        read_lra_list_ops, LIST_OPS_OPTIONS, license="none needed, the expressions are generated"
    ),
    "mnist": ReaderEntry(read_mnist, license="CC BY-SA 3.0, as it is commonly given (LeCun and Cortes)"),
    "pathfinder32": ReaderEntry(read_pathfinder32, ("difficulty",)),
    "pathx": ReaderEntry(read_pathx, ("difficulty",)),
}

GRAPH_READERS |= {
    "coco_sp": ReaderEntry(lrgb_reader("coco_sp"), LRGB_OPTIONS),
    "enzymes": ReaderEntry(tu_reader("ENZYMES"), TU_OPTIONS),
    "esol": ReaderEntry(moleculenet_reader("esol"), MOLECULENET_OPTIONS, is_molecular=True),
    "hiv": ReaderEntry(moleculenet_reader("hiv"), MOLECULENET_OPTIONS, is_molecular=True),
    "imdb_binary": ReaderEntry(tu_reader("IMDB-BINARY"), TU_OPTIONS),
    "lrgb_peptides_func": ReaderEntry(
        lrgb_reader("lrgb_peptides_func"), LRGB_OPTIONS, peptides_func_target_names, is_molecular=True
    ),
    "lrgb_peptides_struct": ReaderEntry(lrgb_reader("lrgb_peptides_struct"), LRGB_OPTIONS, is_molecular=True),
    "mutag": ReaderEntry(tu_reader("MUTAG"), TU_OPTIONS),
    "nci1": ReaderEntry(tu_reader("NCI1"), TU_OPTIONS),
    "pascalvoc_sp": ReaderEntry(lrgb_reader("pascalvoc_sp"), LRGB_OPTIONS),
    "pcqm_contact": ReaderEntry(lrgb_reader("pcqm_contact"), LRGB_OPTIONS),
    "peptides_func": ReaderEntry(
        read_peptides_func,
        target_names=peptides_func_target_names,
        is_molecular=True,
        license="CC BY-NC 4.0 (Long Range Graph Benchmark), so not for commercial use",
    ),
    "proteins": ReaderEntry(tu_reader("PROTEINS"), TU_OPTIONS),
    "tox21": ReaderEntry(
        moleculenet_reader("tox21"),
        MOLECULENET_OPTIONS,
        tox21_target_names,
        is_molecular=True,
        license="none stated for the table; the assays are public data of the Tox21 programme",
    ),
}

READERS |= {
    "modelnet10": ReaderEntry(read_modelnet10, ("num_mesh_points",)),
    "modelnet10_vox": ReaderEntry(
        read_modelnet10_vox,
        license="none stated for the grids; ModelNet's models were gathered from the web for research",
    ),
    "modelnet40": ReaderEntry(read_modelnet40, ("num_mesh_points",)),
    "modelnet40_normal_resampled": ReaderEntry(read_modelnet40_resampled, ("num_classes",)),
    "modelnet40_ply_hdf5_2048": ReaderEntry(read_modelnet40_hdf5),
    "primitives": ReaderEntry(
        read_primitives, ("num_train", "num_test"), license="none needed, the shapes are generated"
    ),
    "scanobjectnn": ReaderEntry(read_scanobjectnn, ("variant",)),
    "shapenetpart": ReaderEntry(read_shapenetpart, ("layout",)),
    "shrec16": ReaderEntry(read_shrec16, license="none stated for the shapes; SHREC is for research"),
}
