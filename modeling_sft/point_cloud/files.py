"""Files of single clouds and meshes: whole and valid, or a ValueError that names the file.

The binary formats of meshes and the triangulation of polygons are trimesh's. Text is read here, strictly and line by
line: trimesh takes a text that was cut or damaged for a mesh of fewer faces, rounds text PLY to the types of its
header, and sorts the faces of an OBJ by material. What a format lets one know about its length is checked: the counts
of OFF, PLY and binary STL, the shapes of npy, npz and h5, the `endsolid` of ASCII STL. OBJ and plain text carry none,
so a file of these that was cut between two lines is a shorter file; and in any text format, a cut within the last
number of the last line goes unseen.
"""

import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..hub.optional import import_optional
from ..hub.unpacking import check_unpacked_size
from ..hub.values import require_integer
from .seeding import MESH_STREAM, Seed, generator, seed_words

_LARGEST_VALUE = 1e38
_PLY_FLOATS = ("float", "float32", "double", "float64")
_PLY_HEADER = re.compile(
    rb"ply[ \t\r]*\nformat[ \t]+(ascii|binary_little_endian|binary_big_endian)[ \t]+\S+[ \t\r]*\n"
    rb"((element[ \t]+\S+[ \t]+\d+|property([ \t]+list[ \t]+\S+)?[ \t]+\S+[ \t]+\S+)[ \t\r]*\n)*"
)


class _Mesh(NamedTuple):
    vertices: NDArray[np.float64]
    """(v, 3)."""
    triangles: NDArray[np.int64]
    """(t, 3) indices of vertices."""


_Cloud = dict[str, NDArray[np.float64]]
_PlyElements = dict[str, dict[str, Any]]


def is_point_cloud_path(value: object) -> bool:
    """Whether it is a `str` or `os.PathLike`, whatever its suffix."""
    return isinstance(value, (str, os.PathLike))


def load_point_cloud(
    path: str | os.PathLike[str], num_mesh_points: int = 2048, seed: Seed = 0
) -> dict[str, NDArray[np.float64]]:
    """Reads one cloud, or samples one from a mesh; the suffix, in any case, decides.

    - `.off`, `.obj`, `.stl`, and `.ply` with faces: meshes. `num_mesh_points` points are drawn uniformly by area
      (Osada et al., "Shape distributions", 2002, equation 1), with the exact normals of their faces. Polygons of more
      than three corners are cut into fans; polygons with different numbers of corners in one binary PLY are refused.
      Materials and textures are ignored, and no other file is opened.
    - `.ply` without faces: its vertices, with nx, ny, nz where it has them.
    - `.xyz`, `.txt`, `.csv`: lines of 3 or 6 numbers (x y z [nx ny nz]) separated by spaces or commas, with `#`
      comments and one first line of these names.
    - `.npy`: (n, 3) or (n, 6). `.npz`: `points` (n, 3) and optionally `normals`. Never unpickled.
    - `.h5`: `points` or `data` (n, 3), and optionally `normals` or `normal`.

    Args:
        path: the file.
        num_mesh_points: how many points to draw from a mesh, at least 1; ignored for clouds.
        seed: an integer, or several, of at least 0. The same file and seed give the same points.

    Returns:
        `points` (n, 3) float64 and, where there are some, `normals` (n, 3) float64, as the file has them.

    Raises:
        ValueError: naming the file: if it is absent, empty, truncated, damaged or of another kind, has an unknown
            suffix, holds NaN, infinite or huge values, or has no face with an area; and for a bad `num_mesh_points` or
            `seed`.
        ImportError: without trimesh (meshes and binary PLY) or h5py (h5).
    """
    require_integer("num_mesh_points", num_mesh_points, 1)
    words = seed_words(seed)
    name = os.fspath(path)
    read = _READERS.get(Path(name).suffix.lower())
    if read is None:
        raise ValueError(f"{name!r} has no known suffix of a point cloud or mesh ({', '.join(POINT_CLOUD_SUFFIXES)}).")
    try:
        if not Path(name).is_file():
            raise ValueError("there is no such file")
        if Path(name).stat().st_size == 0:
            raise ValueError("it is empty")
        content = read(Path(name))
        if isinstance(content, _Mesh):
            return _sample(content, int(num_mesh_points), generator(words, MESH_STREAM))
        return _checked(content)
    except ImportError:
        raise
    # Damaged files raise almost anything: key, index, type, overflow, memory, zip, end-of-file and HDF5 errors.
    except Exception as error:
        problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"The point cloud or mesh {name!r} cannot be read: {problem.rstrip('.')}. Check the path, or copy or "
            "export the file again."
        ) from error


def _checked(cloud: Mapping[str, Any]) -> _Cloud:
    """The arrays of a cloud in float64, after checks of shape, type and values."""
    checked = {}
    for name, value in cloud.items():
        array = np.asarray(value)
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iuf" or len(array) == 0:
            raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; expected (n, 3) of numbers")
        if len(array) != len(cloud["points"]):
            raise ValueError(f"normals has {len(array)} rows and points has {len(cloud['points'])}")
        checked[name] = _finite(array, name)
    return checked


def _finite(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    array = array.astype(np.float64)
    # NaN fails the comparison too.
    if not (np.abs(array) <= _LARGEST_VALUE).all():
        raise ValueError(f"{name} holds NaN, infinite values or values beyond {_LARGEST_VALUE:g} in size")
    return array


def _sample(mesh: _Mesh, num_points: int, rng: np.random.Generator) -> _Cloud:
    vertices, triangles = _finite(mesh.vertices, "the mesh's vertices"), mesh.triangles
    if triangles.size == 0:
        raise ValueError("it has no faces")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise ValueError(f"a face refers to a vertex that is none of its {len(vertices)}")
    corners = vertices[triangles]
    # In units of the mesh's size, so that no product of lengths overflows or underflows.
    relative = corners - corners.min(axis=(0, 1))
    relative = relative / (relative.max() or 1.0)
    crosses = np.cross(relative[:, 1] - relative[:, 0], relative[:, 2] - relative[:, 0])
    areas = np.linalg.norm(crosses, axis=1)
    if not areas.any():
        raise ValueError("none of its faces has an area")
    cumulative = np.cumsum(areas)
    chosen = np.searchsorted(cumulative, rng.random(num_points) * cumulative[-1], side="right")
    # Rounding can reach the total, beyond the last face with an area.
    chosen = np.minimum(chosen, np.flatnonzero(areas)[-1])
    root, share = np.sqrt(rng.random(num_points)), rng.random(num_points)
    weights = np.stack([1 - root, root * (1 - share), root * share], axis=1)
    return {
        "points": np.einsum("nk,nkc->nc", weights, corners[chosen]),
        "normals": crosses[chosen] / areas[chosen, None],
    }


def _text_lines(data: bytes) -> list[str]:
    """The lines that are not blank, without `#` comments."""
    # Latin-1 decodes every byte, and names and comments are in any encoding.
    text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    return [line for line in (raw.split("#", 1)[0].strip() for raw in text.splitlines()) if line]


def _numbers(rows: Sequence[Sequence[str]], columns: int, what: str) -> NDArray[np.float64]:
    """The first `columns` numbers of each row; every row must have as many."""
    short = next((row for row in rows if len(row) < columns), None)
    if short is not None:
        raise ValueError(f"{what} {' '.join(short)!r} has fewer than {columns} numbers; the file may be truncated")
    # NumPy takes longer to convert strings itself.
    return np.array([[float(word) for word in row[:columns]] for row in rows]).reshape(len(rows), columns)


def _polygon_mesh(vertices: NDArray[np.float64], polygons: Sequence[Sequence[int]]) -> _Mesh:
    triangles = import_optional("trimesh", "pointclouds").geometry.triangulate_quads(polygons)
    return _Mesh(vertices, np.asarray(triangles, dtype=np.int64))


def _read_off(path: Path) -> _Mesh:
    lines = _text_lines(path.read_bytes())
    # Some files of ModelNet have the counts glued to the keyword.
    header = re.fullmatch(r"(?:ST)?C?N?(?:OFF|off)\s*(.*)", lines[0]) if lines else None
    if header is None:
        raise ValueError("it does not begin with OFF")
    counts, rows = (header[1], lines[1:]) if header[1] else (lines[1] if len(lines) > 1 else "", lines[2:])
    if re.fullmatch(r"\d+(\s+\d+){1,2}", counts) is None:
        raise ValueError(f"the counts of vertices and faces are {counts!r}")
    num_vertices, num_faces = (int(count) for count in counts.split()[:2])
    if len(rows) != num_vertices + num_faces:
        raise ValueError(
            f"it announces {num_vertices} vertices and {num_faces} faces and has {len(rows)} lines of them"
        )
    vertices = _numbers([row.split() for row in rows[:num_vertices]], 3, "the vertex")
    polygons = []
    for row in rows[num_vertices:]:
        words = row.split()
        size = int(words[0])
        polygons.append([int(corner) for corner in words[1 : size + 1]])
        if len(polygons[-1]) != size:
            raise ValueError(f"the face {row!r} has fewer than {size} corners; the file may be truncated")
    return _polygon_mesh(vertices, polygons)


def _read_obj(path: Path) -> _Mesh:
    data = path.read_bytes().replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    vertices: list[list[str]] = []
    polygons = []
    for line in _text_lines(data):
        keyword, *values = line.split()
        if keyword == "v":
            vertices.append(values)
        elif keyword == "f":
            corners = [int(value.split("/", 1)[0]) for value in values]
            if len(corners) < 3 or 0 in corners:
                raise ValueError(f"the face {line!r} is none; the file may be truncated")
            # Negative indices count back from the newest vertex.
            polygons.append([corner - 1 if corner > 0 else len(vertices) + corner for corner in corners])
    return _polygon_mesh(_numbers(vertices, 3, "the vertex"), polygons)


def _read_stl(path: Path) -> _Mesh:
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little")
    if len(data) == 84 + 50 * count:
        if count == 0:
            raise ValueError("it has no faces")
        # Unprocessed, so that no vertex is merged or moved.
        trimesh = import_optional("trimesh", "pointclouds")
        mesh = trimesh.load_mesh(io.BytesIO(data), file_type="stl", process=False)
        return _Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    lines = [line.split() for line in _text_lines(data)]
    keywords = [line[0].lower() for line in lines]
    if not keywords or keywords[0] != "solid":
        raise ValueError(f"it has {len(data)} bytes and, as a binary STL, should have {84 + 50 * count}")
    if keywords[-1] != "endsolid":
        raise ValueError("it has no endsolid at its end; it is truncated")
    facet = ["facet", "outer", "vertex", "vertex", "vertex", "endloop", "endfacet"]
    inner = [keyword for keyword in keywords if keyword not in ("solid", "endsolid")]
    if inner != facet * (len(inner) // len(facet)):
        raise ValueError("its lines are not whole facets of three vertices")
    vertices = _numbers([line[1:] for line, keyword in zip(lines, keywords) if keyword == "vertex"], 3, "the vertex")
    return _Mesh(vertices, np.arange(len(vertices)).reshape(-1, 3))


def _read_ply(path: Path) -> _Mesh | _Cloud:
    data = path.read_bytes()
    end = re.search(rb"^end_header[ \t]*\r?\n", data, re.MULTILINE)
    if not data.startswith(b"ply") or end is None:
        raise ValueError("it has no whole PLY header")
    # Without what trimesh stumbles over: comments, which are in any encoding, and elements of length 0.
    header = re.sub(rb"^((comment|obj_info)\b.*|[ \t\r]*)\n", b"", data[: end.start()], flags=re.MULTILINE)
    header = re.sub(rb"^element[ \t]+\S+[ \t]+0+[ \t\r]*\n(property\b.*\n)*", b"", header, flags=re.MULTILINE)
    kind = _PLY_HEADER.fullmatch(header)
    if kind is None:
        raise ValueError("its header has an unknown format or line")
    elements = (_ply_text if kind[1] == b"ascii" else _ply_binary)(header, data[end.end() :])
    if "vertex" not in elements:
        raise ValueError("it has no vertices")
    vertex, face = elements["vertex"], elements.get("face")
    points = _ply_table(vertex, ("x", "y", "z"))
    if face is not None:
        return _polygon_mesh(points, face["vertex_indices"] if "vertex_indices" in face else face["vertex_index"])
    names = ("nx", "ny", "nz")
    return {"points": points} | ({"normals": _ply_table(vertex, names)} if vertex.keys() & set(names) else {})


def _ply_table(element: Mapping[str, Any], names: Sequence[str]) -> NDArray[np.float64]:
    return np.stack([np.asarray(element[name], dtype=np.float64) for name in names], axis=1)


def _ply_text(header: bytes, body: bytes) -> _PlyElements:
    """The values by element and property, one entry per line."""
    lines = [line.split() for line in body.decode("latin-1").splitlines() if line.strip()]
    parts = re.split(r"^element\s", header.decode("latin-1"), flags=re.MULTILINE)[1:]
    layout = [[line.split() for line in part.splitlines()] for part in parts]
    announced = sum(int(length) for (_, length), *_ in layout)
    if len(lines) != announced:
        raise ValueError(f"its header announces {announced} lines; it has {len(lines)}")
    rows = iter(lines)
    elements: _PlyElements = {}
    for (name, length), *properties in layout:
        columns = elements[name] = {words[-1]: [] for words in properties}
        for row in islice(rows, int(length)):
            position = 0
            for _, *types, entry in properties:
                is_list, convert = types[0] == "list", float if types[-1] in _PLY_FLOATS else int
                start = position + is_list
                position = start + (int(row[position]) if is_list else 1)
                values = [convert(word) for word in row[start:position]]
                columns[entry].append(values if is_list else values[0])
            if position != len(row):
                raise ValueError(f"the {name} {' '.join(row)!r} does not fit its header; it may be truncated")
    return elements


def _ply_binary(header: bytes, body: bytes) -> _PlyElements:
    """The values by element and property; those of a list in rows."""
    # From memory, so that nothing beside the file can be found.
    file = io.BytesIO(header + b"end_header\n" + body)
    loaded = import_optional("trimesh", "pointclouds").exchange.ply.load_ply(file, skip_materials=True)
    elements = loaded["metadata"]["_ply_raw"]
    # trimesh takes a file that ends before the lists of an element for one without them.
    if len(elements) != header.count(b"\nelement"):
        raise ValueError(f"it has no more than its elements {', '.join(elements)}; it is truncated")
    return {
        name: {entry: _ply_column(entry, element["data"][entry]) for entry in element["properties"]}
        for name, element in elements.items()
    }


def _ply_column(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.names is None:
        return values
    # trimesh takes the length of the first list for that of all.
    if not (values["f0"] == values["f1"].shape[-1]).all():
        raise ValueError(f"its lists {name} differ in length; triangulate the mesh or save it as text")
    return values["f1"]


def _read_text(path: Path) -> _Cloud:
    rows = [
        [word.strip() for word in line.split(",")] if "," in line else line.split()
        for line in _text_lines(path.read_bytes())
    ]
    names = ["x", "y", "z", "nx", "ny", "nz"]
    if rows and [word.strip("\"'").lower() for word in rows[0]] in (names[:3], names):
        rows = rows[1:]
    widths = {len(row) for row in rows}
    if widths not in ({3}, {6}):
        raise ValueError(f"its lines have {sorted(widths)} columns; expected 3 (x y z) or 6 (x y z nx ny nz) in all")
    return _columns(_numbers(rows, widths.pop(), "the line"))


def _columns(table: NDArray[Any]) -> _Cloud:
    if table.ndim != 2 or table.shape[1] not in (3, 6):
        raise ValueError(f"it has an array of shape {table.shape}; expected (n, 3) or (n, 6)")
    return {"points": table} if table.shape[1] == 3 else {"points": table[:, :3], "normals": table[:, 3:]}


def _read_npy(path: Path) -> _Cloud:
    with path.open("rb") as file:
        table = np.load(file, allow_pickle=False)
        if not isinstance(table, np.ndarray):
            raise ValueError("it is an archive of arrays; rename it to .npz")
        if file.read(1):
            raise ValueError("it is longer than its header says")
    return _columns(table)


def _read_npz(path: Path) -> _Cloud:
    # Opened here, because NumPy leaves a damaged archive that it opened itself open.
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array; rename it to .npy")
        check_unpacked_size(path, sum(member.file_size for member in archive.zip.infolist()))
        # The checksums of all members: a damaged name would otherwise read as an absent array.
        damaged = archive.zip.testzip()
        if damaged is not None:
            raise ValueError(f"its member {damaged} is damaged")
        if "points" not in archive:
            raise ValueError(f"it has no array 'points'; its arrays are {sorted(archive)}")
        return {name: archive[name] for name in ("points", "normals") if name in archive}


def _read_h5(path: Path) -> _Cloud:
    h5py = import_optional("h5py", "pointclouds")
    cloud = {}
    with h5py.File(path, "r") as file:
        for name, aliases in (("points", ("points", "data")), ("normals", ("normals", "normal"))):
            alias = next((alias for alias in aliases if alias in file), None)
            if alias is None:
                continue
            # Links, virtual and external data sets open other files.
            if not isinstance(file.get(alias, getlink=True), h5py.HardLink):
                raise ValueError(f"{alias} is a link; store the data itself")
            stored = file[alias]
            if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external:
                raise ValueError(f"{alias} is no data set of this file alone")
            # HDF5 fills what was never written with zeros.
            if stored.chunks is None:
                whole = stored.id.get_storage_size() == stored.nbytes
            else:
                grid = zip(stored.shape, stored.chunks, strict=True)
                whole = stored.id.get_num_chunks() == math.prod(-(-length // chunk) for length, chunk in grid)
            if not whole:
                raise ValueError(f"{alias} is not stored as a whole")
            check_unpacked_size(path, stored.nbytes)
            cloud[name] = stored[()]
        if "points" not in cloud:
            raise ValueError(f"it has neither 'points' nor 'data'; it has {sorted(file)}")
    return cloud


_READERS: dict[str, Callable[[Path], _Mesh | _Cloud]] = {
    ".off": _read_off,
    ".obj": _read_obj,
    ".ply": _read_ply,
    ".stl": _read_stl,
    **dict.fromkeys((".xyz", ".txt", ".csv"), _read_text),
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": _read_h5,
}

POINT_CLOUD_SUFFIXES: tuple[str, ...] = tuple(_READERS)
