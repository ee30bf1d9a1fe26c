"""ShapeNetPart (Yi et al., SIGGRAPH Asia 2016): 16 categories of shapes, 50 kinds of parts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modeling_sft.data.files import damaged, existing_file
from modeling_sft.data.point_cloud.rows import CloudFile, point_cloud_features, point_cloud_rows, rows_of_files

from .files import read_lines, read_table, warn_if_incomplete
from .hdf5 import listed_files, read_hdf5_clouds

if TYPE_CHECKING:
    from datasets import Dataset

HDF5_FOLDERS = ("shapenetpart_hdf5_2048", "hdf5_data", "shapenet_part_seg_hdf5_data", "shapenetpart")
TEXT_FOLDERS = ("shapenetcore_partanno_segmentation_benchmark_v0_normal", "shapenetpart")

LAYOUT = """expected one of two layouts.
"hdf5", as in shapenet_part_seg_hdf5_data.zip of https://github.com/charlesq34/pointnet:
  DATA_DIR/hdf5_data/train_hdf5_file_list.txt, val_hdf5_file_list.txt, test_hdf5_file_list.txt (may be absent)
  DATA_DIR/hdf5_data/ply_data_train0.h5 ..., ply_data_val0.h5, ply_data_test0.h5, ...
each with data (shapes, points, 3), label (shapes, 1) and pid or seg (shapes, points);
the folder may also be named shapenetpart_hdf5_2048 or shapenetpart.
"txt", as in shapenetcore_partanno_segmentation_benchmark_v0_normal.zip of https://github.com/charlesq34/pointnet2:
  DATA_DIR/shapenetcore_partanno_segmentation_benchmark_v0_normal/synsetoffset2category.txt
  DATA_DIR/shapenetcore_partanno_segmentation_benchmark_v0_normal/train_test_split/shuffled_{train,val,test}_file_list.json
  DATA_DIR/shapenetcore_partanno_segmentation_benchmark_v0_normal/<synset>/<id>.txt: lines of x y z nx ny nz part;
the folder may also be named shapenetpart."""

NUM_PARTS = {
    "Airplane": 4,
    "Bag": 2,
    "Cap": 2,
    "Car": 4,
    "Chair": 4,
    "Earphone": 3,
    "Guitar": 3,
    "Knife": 2,
    "Lamp": 4,
    "Laptop": 2,
    "Motorbike": 6,
    "Mug": 2,
    "Pistol": 3,
    "Rocket": 3,
    "Skateboard": 3,
    "Table": 3,
}
CATEGORIES = list(NUM_PARTS)
PARTS = [f"{category}/{part}" for category, count in NUM_PARTS.items() for part in range(count)]
FIRST_PART = np.concatenate([[0], np.cumsum(list(NUM_PARTS.values()))])
"""Parts of category c have the ids FIRST_PART[c] to FIRST_PART[c + 1] - 1."""

SPLITS = {"train": "train", "validation": "val", "test": "test"}
OFFICIAL_COUNTS = {"train": 12137, "validation": 1870, "test": 2874}


def read_shapenetpart(data_dir: str | os.PathLike[str] | None, layout: str | None = None) -> dict[str, Dataset]:
    """12137 / 1870 / 2874 shapes; `label` is the category, `point_labels` are the parts, numbered over all categories.

    The release does not name the parts; here their names are category and number, such as "Lamp/2".

    Args:
        data_dir: holds the folder.
        layout: `"hdf5"` (2048 points, no normals) or `"txt"` (all points, normals); None takes the one that is there.

    Raises:
        ValueError: for damaged files, an unknown or absent layout, or two layouts of which none is chosen.
    """
    if layout not in (None, "hdf5", "txt"):
        raise ValueError(f"layout of shapenetpart must be 'hdf5' or 'txt'; got {layout!r}.")
    if data_dir is None:
        raise ValueError(f"data_dir is needed for shapenetpart; {LAYOUT}")
    found = {
        "hdf5": next((path for path in _folders(data_dir, HDF5_FOLDERS) if any(path.glob("*train*.h5"))), None),
        "txt": next(
            (path for path in _folders(data_dir, TEXT_FOLDERS) if (path / "synsetoffset2category.txt").is_file()), None
        ),
    }
    present = [name for name, folder in found.items() if folder is not None]
    if layout is None and len(present) == 2:
        raise ValueError(
            f"data_dir {str(data_dir)!r} has both layouts of shapenetpart: set layout to one of {present}."
        )
    folder = found[layout or (present[0] if present else "hdf5")]
    if folder is None:
        raise ValueError(f"data_dir {str(data_dir)!r} has no folder of shapenetpart; {LAYOUT}")
    rows = _read_text_layout(folder) if folder == found["txt"] else _read_hdf5_layout(folder)
    warn_if_incomplete("shapenetpart", rows, OFFICIAL_COUNTS)
    return rows


def _folders(data_dir: str | os.PathLike[str], names: tuple[str, ...]) -> list[Path]:
    return [path for name in names for path in (Path(data_dir) / name, Path(data_dir) / name / "hdf5_data")]


def _read_hdf5_layout(folder: Path) -> dict[str, Dataset]:
    rows = {}
    for split, short in SPLITS.items():
        files = []
        for path in listed_files(folder, f"{short}_hdf5_file_list.txt", f"*{short}*.h5", LAYOUT):
            files.append(read_hdf5_clouds(path, len(CATEGORIES), ("pid", "seg")))
            check_parts(path, files[-1]["point_labels"], files[-1]["label"][:, None])
        names = ("points", "label", "point_labels")
        columns = {name: [row for file in files for row in file[name]] for name in names}
        rows[split] = point_cloud_rows(columns, CATEGORIES, PARTS)
    return rows


def _read_text_layout(folder: Path) -> dict[str, Dataset]:
    labels = _read_synsets(folder / "synsetoffset2category.txt")
    files: dict[str, list[CloudFile]] = {}
    split_of: dict[Path, str] = {}
    for split, short in SPLITS.items():
        list_path = existing_file(folder / "train_test_split" / f"shuffled_{short}_file_list.json", LAYOUT)
        files[split] = [_listed_shape(folder, list_path, entry, labels) for entry in _read_list(list_path)]
        for file in files[split]:
            if file.path in split_of:
                raise damaged(list_path, f"{file.path.stem} is listed twice (also for {split_of[file.path]})")
            split_of[file.path] = split
    features = point_cloud_features({"points": 3, "normals": 3}, CATEGORIES, PARTS)
    return {split: rows_of_files(read_annotated_cloud, listed, split, features) for split, listed in files.items()}


def read_annotated_cloud(file: CloudFile) -> dict[str, Any]:
    """Reads the points, normals and part ids of one shape.

    Raises:
        ValueError: if a line holds anything else.
    """
    table = read_table(file.path, 7)
    parts = table[:, 6].astype(np.int64)
    if not np.array_equal(parts, table[:, 6]):
        raise damaged(file.path, "its last column holds other than part ids")
    check_parts(file.path, parts, np.array(file.label))
    return {"points": table[:, :3], "normals": table[:, 3:6], "point_labels": parts}


def check_parts(path: Path, parts: NDArray[np.int64], categories: NDArray[np.int64]) -> None:
    """Checks that parts belong to their categories; the two arrays are broadcast.

    Raises:
        ValueError: if a part does not.
    """
    wrong = (parts < FIRST_PART[categories]) | (parts >= FIRST_PART[categories + 1])
    if wrong.any():
        category = CATEGORIES[np.broadcast_to(categories, parts.shape)[wrong][0]]
        raise damaged(path, f"a point has part {parts[wrong][0]}, which no {category} has")


def _read_synsets(path: Path) -> dict[str, int]:
    """The label of each synset."""
    pairs = [line.split() for line in read_lines(path)]
    if sorted(pair[0] for pair in pairs) != CATEGORIES or any(len(pair) != 2 for pair in pairs):
        raise damaged(path, f"it should have one line with name and synset for each of {', '.join(CATEGORIES)}")
    labels = {synset: CATEGORIES.index(category) for category, synset in pairs}
    if len(labels) < len(CATEGORIES):
        raise damaged(path, "it has a synset twice")
    return labels


def _read_list(path: Path) -> list[str]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, f"it is no JSON ({error})") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
        raise damaged(path, "it is no list of shapes")
    return entries


def _listed_shape(folder: Path, list_path: Path, entry: str, labels: dict[str, int]) -> CloudFile:
    synset, _, shape = entry.rpartition("/")
    synset = synset.rpartition("/")[2]
    if synset not in labels or not shape:
        raise damaged(list_path, f"{entry!r} is no shape_data/<synset>/<id>")
    path = existing_file(folder / synset / f"{shape}.txt", f"{list_path.name} names it; {LAYOUT}")
    return CloudFile(path, labels[synset])
