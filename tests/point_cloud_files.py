"""Tiny files in the layouts of the public point-cloud data sets."""

import json

import h5py
import numpy as np

from lab.readers.point_cloud.modelnet_names import MODELNET10_CLASSES, MODELNET40_CLASSES
from lab.readers.point_cloud.shapenetpart import CATEGORIES, FIRST_PART

TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3.0]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
SYNSETS = [f"{4 * number + 2691156:08d}" for number in range(16)]


def write_off(path, scale=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["OFF", f"{len(TETRAHEDRON)} {len(FACES)} 0"]
    lines += [" ".join(map(str, vertex)) for vertex in scale * TETRAHEDRON]
    lines += ["3 " + " ".join(map(str, face)) for face in FACES]
    path.write_text("\n".join(lines) + "\n")


def write_modelnet_meshes(folder, name="ModelNet10", classes=MODELNET10_CLASSES, num_train=2, num_test=1):
    """The mesh of class c is c + 1 times a tetrahedron."""
    for label, class_name in enumerate(classes):
        for number in range(num_train + num_test):
            split = "train" if number < num_train else "test"
            write_off(folder / name / class_name / split / f"{class_name}_{number + 1:04d}.off", scale=label + 1)
    return folder / name


def clouds(num_clouds, num_points=7, seed=0):
    return np.random.default_rng((seed, num_clouds)).normal(size=(num_clouds, num_points, 3)).astype(np.float32)


def write_h5(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip" if np.ndim(array) else None)


def write_modelnet_hdf5(folder, normals=True):
    """Two files of 5 and 4 clouds for training, one of 3 to test."""
    folder = folder / "modelnet40_ply_hdf5_2048"
    for number, (name, size) in enumerate((("train0", 5), ("train1", 4), ("test0", 3))):
        extra = {"normal": clouds(size, seed=10 + number)} if normals else {}
        label = (7 * number + np.arange(size, dtype=np.uint8))[:, None].astype(np.uint8)
        write_h5(folder / f"ply_data_{name}.h5", data=clouds(size, seed=number), label=label, **extra)
    prefix = "data/modelnet40_ply_hdf5_2048/ply_data_"
    (folder / "train_files.txt").write_text(f"{prefix}train0.h5\n{prefix}train1.h5\n")
    (folder / "test_files.txt").write_text(f"{prefix}test0.h5\n")
    (folder / "shape_names.txt").write_text("\n".join(MODELNET40_CLASSES) + "\n")
    return folder


def write_resampled(folder, num_classes=10, num_points=10_000):
    """Two shapes of each class for training, one to test; shape i of all starts with the coordinate i."""
    folder = folder / "modelnet40_normal_resampled"
    classes = {10: MODELNET10_CLASSES, 40: MODELNET40_CLASSES}[num_classes]
    rest = "0.1,0.2,0.0,0.0,1.0\n"
    listed = {"train": [], "test": []}
    for number in range(3 * len(classes)):
        class_name = classes[number // 3]
        name = f"{class_name}_{number % 3 + 1:04d}"
        path = folder / class_name / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}.5,{rest}" + f"-0.25,{rest}" * (num_points - 1))
        listed["test" if number % 3 == 2 else "train"].append(name)
    for split, names in listed.items():
        (folder / f"modelnet{num_classes}_{split}.txt").write_text("\n".join(names) + "\n")
    (folder / f"modelnet{num_classes}_shape_names.txt").write_text("\n".join(classes) + "\n")
    return folder


def write_scanobjectnn(folder, name="scanobjectnn"):
    folder = folder / name
    for number, (subfolder, suffix) in enumerate(
        (("main_split_nobg", ""), ("main_split", ""), ("main_split", "_augmentedrot_scale75"))
    ):
        for prefix, size in (("training", 6), ("test", 3)):
            write_h5(
                folder / subfolder / f"{prefix}_objectdataset{suffix}.h5",
                data=clouds(size, seed=number),
                label=(np.arange(size) * 2 + number).astype(np.int32),
                mask=np.zeros((size, 7), np.int32),
            )
    return folder


def part_ids(categories, num_points=7):
    """The parts of each category in turn."""
    counts = np.diff(FIRST_PART)[categories]
    return FIRST_PART[categories][:, None] + np.arange(num_points) % counts[:, None]


def write_shapenetpart_hdf5(folder, name="hdf5_data", parts="pid"):
    folder = folder / name
    for number, (split, size) in enumerate((("train0", 16), ("train1", 4), ("val0", 5), ("test0", 3))):
        label = (np.arange(size) + number) % 16
        arrays = {parts: part_ids(label).astype(np.uint8)}
        write_h5(
            folder / f"ply_data_{split}.h5",
            data=clouds(size, seed=number),
            label=label.astype(np.uint8)[:, None],
            **arrays,
        )
    (folder / "train_hdf5_file_list.txt").write_text("ply_data_train0.h5\nply_data_train1.h5\n")
    (folder / "val_hdf5_file_list.txt").write_text("ply_data_val0.h5\n")
    (folder / "test_hdf5_file_list.txt").write_text("ply_data_test0.h5\n")
    return folder


def write_shapenetpart_text(folder):
    """Three shapes of each category, one per split; shape i of all has 5 + i points and starts with coordinate i."""
    folder = folder / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    (folder / "train_test_split").mkdir(parents=True)
    (folder / "synsetoffset2category.txt").write_text(
        "".join(f"{category}\t{synset}\n" for category, synset in zip(CATEGORIES, SYNSETS))
    )
    listed = {"train": [], "val": [], "test": []}
    for label, synset in enumerate(SYNSETS):
        (folder / synset).mkdir()
        for number, split in enumerate(listed):
            index = 3 * label + number
            parts = part_ids(np.array([label]), num_points=5 + index)[0]
            lines = [f"{index} 0.25 -0.5 0 0 1 {part:.6f}\n" for part in parts]
            (folder / synset / f"shape{index}.txt").write_text("".join(lines))
            listed[split].append(f"shape_data/{synset}/shape{index}")
    for split, names in listed.items():
        # As in the release, in no order.
        shuffled = np.random.default_rng(0).permutation(names).tolist()
        (folder / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(shuffled))
    return folder


def flipped(content, rng):
    """The bytes with one of them changed."""
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
    return bytes(damaged)
