"""Files of clouds and meshes: what is read, how meshes are sampled, and that damaged files are refused."""

import io
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from modeling_sft.point_cloud.files import POINT_CLOUD_SUFFIXES, is_point_cloud_path, load_point_cloud

h5py = pytest.importorskip("h5py")
trimesh = pytest.importorskip("trimesh")

SIZE = np.array([2.0, 4.0, 1.0])
POINTS = np.random.default_rng(0).normal(size=(20, 3)).round(4)
NORMALS = np.random.default_rng(1).normal(size=(20, 3)).round(4)
PLY_HEADER = "ply\nformat {}\ncomment by hand\nelement vertex 20\n{}end_header\n"


def text(table: np.ndarray, separator: str = " ") -> bytes:
    return "".join(separator.join(f"{value:.4f}" for value in row) + "\n" for row in table).encode()


def ply_cloud(kind: str, order: str = "") -> bytes:
    names = ("x", "y", "z", "nx", "ny", "nz")
    header = PLY_HEADER.format(f"{kind} 1.0", "".join(f"property double {name}\n" for name in names)).encode()
    table = np.hstack([POINTS, NORMALS])
    return header + (table.astype(f"{order}f8").tobytes() if order else text(table))


def saved(save, *arguments, **arrays) -> bytes:
    stream = io.BytesIO()
    save(stream, *arguments, **arrays)
    return stream.getvalue()


def h5(**options) -> bytes:
    def save(stream):
        with h5py.File(stream, "w") as file:
            file.create_dataset("points", data=POINTS, **options)
            file.create_dataset("normals", data=NORMALS, **options)

    return saved(save)


def box(kind: str, **options) -> bytes:
    data = trimesh.creation.box(SIZE).export(file_type=kind, **options)
    return data.encode() if isinstance(data, str) else data


MESHES = {
    "mesh.off": box("off"),
    "mesh.obj": box("obj"),
    "mesh.stl": box("stl"),
    "text.stl": box("stl_ascii"),
    "mesh.ply": box("ply"),
    "text.ply": box("ply", encoding="ascii"),
}
CLOUDS = {
    "binary.ply": ply_cloud("binary_little_endian", "<"),
    "big.ply": ply_cloud("binary_big_endian", ">"),
    "text.ply": ply_cloud("ascii"),
    "noted.ply": ply_cloud("binary_little_endian", "<").replace(b"by hand", b"\xe0 la main"),
    "spaces.xyz": text(np.hstack([POINTS, NORMALS])),
    "commas.TXT": text(np.hstack([POINTS, NORMALS]), ","),
    "named.csv": b"x, y, z, nx, ny, nz\n" + text(np.hstack([POINTS, NORMALS]), ", "),
    "array.npy": saved(np.save, np.hstack([POINTS, NORMALS])),
    "arrays.npz": saved(np.savez, points=POINTS, normals=NORMALS, label=3),
    "packed.npz": saved(np.savez_compressed, points=POINTS, normals=NORMALS),
    "plain.h5": h5(),
    "packed.h5": h5(compression="gzip", chunks=(7, 3)),
}
WITHOUT_COUNTS = ("mesh.obj", "spaces.xyz", "commas.TXT", "named.csv")


def load(folder: Path, name: str, data: bytes, **arguments) -> dict[str, np.ndarray]:
    (folder / name).write_bytes(data)
    return load_point_cloud(folder / name, **arguments)


def assert_refused(folder: Path, name: str, data: bytes, message: str | None = None) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(folder, name, data)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", MESHES)
def test_meshes_are_sampled_uniformly_by_area_with_exact_normals(name, tmp_path):
    cloud = load(tmp_path, name, MESHES[name], num_mesh_points=6000)
    assert {key: value.shape for key, value in cloud.items()} == {"points": (6000, 3), "normals": (6000, 3)}
    np.testing.assert_array_equal(np.sort(np.abs(cloud["normals"]), axis=1), np.tile([0.0, 0.0, 1.0], (6000, 1)))
    axis = np.abs(cloud["normals"]).argmax(axis=1)
    rows = np.arange(6000)
    np.testing.assert_allclose(cloud["points"][rows, axis], cloud["normals"][rows, axis] * SIZE[axis] / 2, atol=1e-6)
    assert (np.abs(cloud["points"]) <= SIZE / 2 + 1e-6).all()
    areas = np.array([SIZE[1] * SIZE[2], SIZE[0] * SIZE[2], SIZE[0] * SIZE[1]])
    for side in (-1, 1):
        count = np.bincount(axis[cloud["normals"][rows, axis] == side], minlength=3)
        np.testing.assert_allclose(count / 6000, areas / areas.sum() / 2, atol=0.02)
    for along in range(3):
        for across in {0, 1, 2} - {along}:
            inner = cloud["points"][axis == along, across]
            assert inner.std() == pytest.approx(SIZE[across] / np.sqrt(12), rel=0.05)
            assert abs(inner.mean()) < 0.05 * SIZE[across]


def test_the_seed_decides_the_sample(tmp_path):
    def points(seed):
        return load(tmp_path, "mesh.off", MESHES["mesh.off"], num_mesh_points=5, seed=seed)["points"]

    np.testing.assert_array_equal(points(1), points(1))
    assert not np.allclose(points(1), points(2)) and not np.allclose(points(1), points((1, 0)))


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_are_read_as_they_are(name, tmp_path):
    cloud = load(tmp_path, name, CLOUDS[name])
    assert set(cloud) == {"points", "normals"}
    for key, expected in (("points", POINTS), ("normals", NORMALS)):
        assert cloud[key].dtype == np.float64
        np.testing.assert_array_equal(cloud[key], expected)


def test_normals_are_optional(tmp_path):
    ply = PLY_HEADER.format("ascii 1.0", "property float x\nproperty float y\nproperty uchar red\nproperty float z\n")
    rows = b"".join(b"%.4f %.4f 7 %.4f\n" % tuple(row) for row in POINTS)
    only_data = saved(lambda stream: h5py.File(stream, "w").create_dataset("data", data=POINTS).file.close())
    for name, data in (
        ("a.ply", ply.encode() + rows),
        ("a.xyz", b"# a comment\n\n" + text(POINTS)),
        ("a.csv", b"\xef\xbb\xbfX,Y,Z\r\n" + text(POINTS, ",").replace(b"\n", b"\r\n")),
        ("a.npy", saved(np.save, POINTS)),
        ("a.npz", saved(np.savez, points=POINTS)),
        ("a.h5", only_data),
    ):
        cloud = load(tmp_path, name, data)
        assert set(cloud) == {"points"}, name
        np.testing.assert_array_equal(cloud["points"], POINTS)


@pytest.mark.parametrize(
    "head", [b"OFF4 1 0", b"OFF 4 1 0", b"OFF\n4 1", b"# by hand\nOFF # x\n\n4 1 0", b"COFF\r\n4 1 0"]
)
def test_off_headers(head, tmp_path):
    cloud = load(tmp_path, "a.off", head + b"\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n4 0 1 2 3 255 0 0\n")
    np.testing.assert_array_equal(cloud["normals"], np.tile([0.0, 0.0, 1.0], (2048, 1)))
    np.testing.assert_allclose(cloud["points"].mean(axis=0), [1, 1, 0], atol=0.05)


def test_obj_faces_and_the_files_it_names(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd missing.png\n")
    square = b"mtllib a.mtl\nusemtl m\nv 0 0 0\nv 2 0 0\nv 2 2 0\nv 0 2 0 # last\nvt 0 0\nvn 0 0 1\n"
    for face in (b"f 1 2 3 4", b"f 1/1/1 2/1/1 3/1/1 4/1/1", b"f 1//1 2//1 \\\n3//1 4//1", b"f -4 -3 -2 -1"):
        cloud = load(tmp_path, "a.obj", square + face)
        assert (cloud["normals"] == [0, 0, 1]).all() and cloud["points"].max() > 1.9
        np.testing.assert_allclose(cloud["points"].mean(axis=0), [1, 1, 0], atol=0.05)


def test_polygons_of_mixed_sizes_in_ply(tmp_path):
    header = "ply\nformat {} 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    header += "element face 2\nproperty list uchar int vertex_index\nend_header\n"
    corners = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0], [-2, 1, 0]])
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in corners) + "4 0 1 2 3\n3 0 3 4\n"
    cloud = load(tmp_path, "a.ply", (header.format("ascii") + rows).encode(), num_mesh_points=3000)
    assert (cloud["points"][:, 0] < 0).mean() == pytest.approx(1 / 3, abs=0.03)
    lists = b"".join(
        bytes([len(row)]) + np.array(row, "<i4").tobytes() for row in ((0, 1, 2, 3), (0, 3, 4), (0, 1, 2, 3, 4))
    )
    binary = (
        header.format("binary_little_endian").replace("face 2", "face 3").encode() + corners.astype("<f4").tobytes()
    )
    # 4, 3 and 5 corners take as many bytes as three times 4.
    assert_refused(tmp_path, "a.ply", binary + lists, "differ in length")


def test_faces_without_area_are_never_drawn(tmp_path):
    flat = b"3 0 0 1\n3 0 1 1\n"
    head = b"OFF\n3 5 0\n0 0 0\n1e-30 0 0\n0 1e-30 0\n"
    cloud = load(tmp_path, "a.off", head + flat + b"3 0 1 2\n" + flat)
    np.testing.assert_array_equal(cloud["normals"], np.tile([0.0, 0.0, 1.0], (2048, 1)))
    assert_refused(tmp_path, "a.off", head.replace(b"5", b"4") + flat + flat, "none of its faces has an area")


def cuts_and_flips(data: bytes, count: int = 40):
    rng = np.random.default_rng(0)
    for length in sorted({*np.linspace(0, len(data) - 1, count, dtype=int).tolist(), len(data) - 2}):
        yield True, data[:length]
    for _ in range(count):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] = rng.integers(256)
        yield False, bytes(flipped)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "data"), [*MESHES.items(), *CLOUDS.items()])
def test_damaged_files_are_refused_or_valid(name, data, tmp_path):
    whole = load(tmp_path, name, data, num_mesh_points=16)
    # A cut within the last number or word of a text goes unseen.
    tail = len(data.split()[-1]) + 1
    for is_cut, damaged in cuts_and_flips(data):
        try:
            cloud = load(tmp_path, name, damaged, num_mesh_points=16)
        except ValueError as error:
            assert name in str(error)
            continue
        assert all(value.shape == cloud["points"].shape and value.shape[1] == 3 for value in cloud.values())
        assert all(len(value) and np.isfinite(value).all() for value in cloud.values())
        if name not in WITHOUT_COUNTS:
            assert len(cloud["points"]) == len(whole["points"])
            assert not is_cut or len(data) - len(damaged) <= tail, f"{len(damaged)} of {len(data)} bytes"


def test_a_cut_text_without_counts_is_a_shorter_cloud(tmp_path):
    rows = CLOUDS["spaces.xyz"].splitlines(keepends=True)
    np.testing.assert_array_equal(load(tmp_path, "a.xyz", b"".join(rows[:7]))["points"], POINTS[:7])
    assert_refused(tmp_path, "a.xyz", b"".join(rows[:7]) + b"1.0 2.0", "columns")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.off", b"", "empty"),
        ("a.off", b"PLY\n", "begin with OFF"),
        ("a.off", b"4OFF\n1 1 0\n0 0 0 0\n3 0 0 0", "begin with OFF"),
        ("a.off", b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "no faces"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "none of its 3"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n", "none of its 3"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 nan\n0 1 0\n3 0 1 2\n", "NaN"),
        ("a.off", b"OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "announces 3 vertices and 2 faces"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n", "fewer than 4 corners"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\n", "no faces"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2", "'f 0 1 2'"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2", "'f 1 2'"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1\nf 1 2 3", "fewer than 3 numbers"),
        ("a.stl", MESHES["mesh.stl"][:-1], "should have 684"),
        ("a.stl", bytes(84), "no faces"),
        ("a.stl", MESHES["text.stl"].rsplit(b"endsolid", 1)[0], "endsolid"),
        ("a.ply", ply_cloud("ascii").replace(b"nz", b"mz"), "nz"),
        ("a.ply", ply_cloud("ascii").replace(b"vertex 20", b"vertex 19"), "19 lines"),
        ("a.ply", ply_cloud("binary_little_endian", "<").replace(b"vertex 20", b"vertex 19"), "unexpected length"),
        ("a.ply", ply_cloud("ascii 1.0 #"), "format"),
        # Its 12 faces of 13 bytes are cut off.
        ("a.ply", MESHES["mesh.ply"][: -12 * 13], "truncated"),
        ("a.txt", b"1 2 3 4\n", "3 .x y z. or 6"),
        ("a.txt", b"1,,2,3\n", "3 .x y z. or 6"),
        ("a.csv", b"a,b,c\n1,2,3\n", "could not convert"),
        ("a.csv", b"x,y,z\n", "columns"),
        ("a.xyz", b"0 0 inf\n", "NaN"),
        ("a.npy", saved(np.save, np.zeros((5, 4))), r"\(5, 4\)"),
        ("a.npy", saved(np.save, np.zeros((5, 3), bool)), "bool"),
        ("a.npy", saved(np.save, np.zeros((0, 3))), r"\(0, 3\)"),
        ("a.npy", saved(np.save, POINTS) + b"0", "longer"),
        ("a.npy", CLOUDS["arrays.npz"], "rename it to .npz"),
        ("a.npz", saved(np.save, POINTS), "rename it to .npy"),
        ("a.npz", saved(np.savez, data=POINTS), "no array 'points'"),
        ("a.npz", saved(np.savez, points=POINTS, normals=NORMALS[1:]), "normals has 19 rows"),
        # Only the name in the archive's directory, which would hide the normals.
        ("a.npz", b"mormals".join(CLOUDS["arrays.npz"].rsplit(b"normals", 1)), "mormals.npy is damaged"),
        ("a.h5", saved(lambda stream: h5py.File(stream, "w").create_group("x").file.close()), "'points' nor 'data'"),
        ("a.pcd", b"0 0 0", "known suffix"),
        ("a", b"0 0 0", "known suffix"),
    ],
)
def test_refused_files(name, data, message, tmp_path):
    assert_refused(tmp_path, name, data, message)


def test_absent_files_and_folders_are_refused(tmp_path):
    (tmp_path / "folder.ply").mkdir()
    for path in (tmp_path / "none.ply", tmp_path / "folder.ply", "nul\0.ply"):
        with pytest.raises(ValueError, match=r"\.ply"):
            load_point_cloud(path)
    with pytest.raises(ValueError, match=r"\.off, \.obj, \.ply, \.stl, \.xyz, \.txt, \.csv, \.npy, \.npz, \.h5"):
        load_point_cloud("cloud.pcd")


@pytest.mark.parametrize("arguments", [{"num_mesh_points": 0}, {"num_mesh_points": 2.5}, {"seed": -1}])
def test_bad_arguments_are_refused(arguments, tmp_path):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        load(tmp_path, "mesh.off", MESHES["mesh.off"], **arguments)


class Explosive:
    """Unpickling it creates the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_nothing_is_unpickled(tmp_path):
    trap = Explosive(str(tmp_path / "exploded"))
    array = np.array([trap, trap, trap], dtype=object)[None]
    for name, data in (
        ("a.npy", saved(np.save, array)),
        ("a.npz", saved(np.savez, points=array)),
        ("b.npy", pickle.dumps(trap)),
        ("b.npz", pickle.dumps(trap)),
    ):
        assert_refused(tmp_path, name, data)
    assert not (tmp_path / "exploded").exists()


def test_h5_reads_no_other_file_and_nothing_unwritten(tmp_path):
    (tmp_path / "other.h5").write_bytes(h5())
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["points"] = h5py.ExternalLink("other.h5", "points")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(shape=(20, 3), dtype=float)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "points", shape=(20, 3))
        file.create_virtual_dataset("points", layout)
    (tmp_path / "raw").write_bytes(POINTS.tobytes())
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("points", (20, 3), float, external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
    with h5py.File(tmp_path / "unwritten.h5", "w") as file:
        file.create_dataset("points", (20, 3), float)
    with h5py.File(tmp_path / "partly.h5", "w") as file:
        file.create_dataset("points", (20, 3), float, chunks=(10, 3))[:10] = 1
    for name in ("link", "virtual", "external", "unwritten", "partly"):
        with pytest.raises(ValueError, match=f"{name}.h5"):
            load_point_cloud(tmp_path / f"{name}.h5")


@pytest.mark.parametrize(("library", "name"), [("trimesh", "mesh.off"), ("trimesh", "mesh.ply"), ("h5py", "plain.h5")])
def test_missing_libraries_are_named(library, name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"`{library}`: pip install .modeling-sft\[pointclouds\]"):
        load(tmp_path, name, {**CLOUDS, **MESHES}[name])


def test_what_a_path_is():
    assert is_point_cloud_path("a.ply") and is_point_cloud_path(Path("a")) and ".h5" in POINT_CLOUD_SUFFIXES
    assert not any(is_point_cloud_path(value) for value in (b"a.ply", np.zeros((2, 3)), [["a.ply"]], None))
