"""What callers pass as point clouds, as checked arrays: arrays, tensors, lists, files, PyTorch Geometric objects."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..nn.checks import IGNORED_LABEL
from .files import is_point_cloud_path, load_point_cloud
from .seeding import Seed

_LARGEST_VALUE = 1e38


class CloudInput(NamedTuple):
    """One cloud as it was passed; `points` may still be a path or a PyTorch Geometric `Data`."""

    points: Any
    normals: Any = None
    point_features: Any = None
    point_labels: Any = None


def split_into_clouds(cloud: CloudInput) -> list[CloudInput]:
    """One entry per cloud of a call.

    Args:
        cloud: `points` is one cloud (array (n, 3), path or `Data`), or several (array (B, n, 3), list or PyG `Batch`);
            the others are alike, with one entry per cloud, or None.

    Returns:
        One `CloudInput` per cloud; only those of a `Batch` are read already.

    Raises:
        ValueError: if `points` is none of these, or if others have another number of entries.
    """
    points = cloud.points
    if _is_graph(points) and getattr(points, "batch", None) is not None:
        parts = _split_graph(points)
        companions = [_match_clouds(value, name, len(parts)) for name, value in _companions(cloud)]
        return [_merged(part, *values) for part, *values in zip(parts, *companions, strict=True)]
    is_single = is_point_cloud_path(points) or _is_graph(points)
    if not is_single and not _is_list_of_sources(points):
        depth = _depth(points)
        if depth > 0 and len(points) == 0:
            raise ValueError("points is empty; pass one cloud (n, 3), a batch (B, n, 3) or a list of clouds.")
        if depth not in (2, 3):
            raise ValueError(
                "points must be one cloud (n, 3), a batch (B, n, 3), a path, a PyTorch Geometric Data or Batch, or a "
                f"list of clouds; got {type(points).__name__} with {depth} dimensions."
            )
        is_single = depth == 2
    if is_single:
        return [cloud]
    entries = list(points)
    companions = [_match_clouds(value, name, len(entries)) for name, value in _companions(cloud)]
    return [CloudInput(*values) for values in zip(entries, *companions, strict=True)]


def read_cloud(cloud: CloudInput, num_mesh_points: int, seed: Seed) -> CloudInput:
    """The cloud with its points as an array: files are read, PyTorch Geometric `Data` is taken apart.

    Raises:
        ValueError: for a file that cannot be read, a `Data` that is none, or normals given twice.
    """
    if is_point_cloud_path(cloud.points):
        content = load_point_cloud(cloud.points, num_mesh_points, seed)
        return _merged(CloudInput(content["points"], content.get("normals")), *cloud[1:])
    if _is_graph(cloud.points):
        if getattr(cloud.points, "batch", None) is not None:
            raise ValueError("points is a Batch of several clouds; call the processor, or pass one Data.")
        return _merged(_graph_parts(cloud.points), *cloud[1:])
    return cloud


def validated_points(value: Any) -> NDArray[np.float64]:
    """Coordinates (n, 3) in float64.

    Raises:
        ValueError: for other shapes and types, no points, and values that are not finite or beyond 1e38.
    """
    array = _as_array(value, "points")
    if array.ndim > 0 and len(array) == 0:
        raise ValueError("points is empty; a cloud needs at least one point.")
    return validated_array(array, "points", None, columns=3)


def validated_array(value: Any, name: str, num_points: int | None, columns: int | None = None) -> NDArray[np.float64]:
    """Numbers (n, F) in float64, where n and F (`columns`) may be prescribed.

    Raises:
        ValueError: for other shapes and types, and values that are not finite or beyond 1e38.
    """
    array = _as_array(value, name)
    width = "F" if columns is None else str(columns)
    if array.ndim != 2 or (columns is not None and array.shape[1] != columns) or array.shape[-1] == 0:
        hint = ""
        if array.ndim == 2 and array.shape[0] == columns:
            hint = f"; transpose it: {name}.T"
        elif array.ndim == 2 and columns is not None and array.shape[1] > columns:
            hint = f"; pass {name}[:, :{columns}] and the other columns as normals or point_features"
        elif array.ndim == 1 and columns is None:
            hint = f"; one number per point is {name}[:, None]"
        raise ValueError(f"{name} of one cloud must have shape (n, {width}); got {array.shape}{hint}.")
    _check_length(array, name, num_points)
    array = array.astype(np.float64)
    # NaN fails the comparison too.
    if not (np.abs(array) <= _LARGEST_VALUE).all():
        raise ValueError(
            f"{name} holds NaN, infinite values or values beyond {_LARGEST_VALUE:g} in size; remove these points, "
            f"for instance by keeping those with np.isfinite({name}).all(axis=1)."
        )
    return array


def validated_labels(value: Any, num_points: int) -> NDArray[np.int64]:
    """Classes of points (n,) in int64.

    Raises:
        ValueError: unless they are n integers of at least 0, or -100 for points without a label.
    """
    array = _as_array(value, "point_labels")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            "point_labels of one cloud must be one integer per point, of shape (n,); "
            f"got type {array.dtype} and shape {array.shape}."
        )
    _check_length(array, "point_labels", num_points)
    array = array.astype(np.int64)
    if ((array < 0) & (array != IGNORED_LABEL)).any():
        raise ValueError(
            f"point_labels holds {array[(array < 0) & (array != IGNORED_LABEL)][0]}; classes count from 0, and "
            f"{IGNORED_LABEL} marks points without a label."
        )
    return array


def _check_length(array: NDArray[Any], name: str, num_points: int | None) -> None:
    if num_points is not None and len(array) != num_points:
        raise ValueError(f"{name} has {len(array)} rows and points has {num_points}; give one row per point.")


def _as_array(value: Any, name: str) -> NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is ragged; every point needs the same number of columns.") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold real numbers; got an array of type {array.dtype}.")
    return array


def _companions(cloud: CloudInput) -> list[tuple[str, Any]]:
    return list(zip(CloudInput._fields[1:], cloud[1:], strict=True))


def _merged(read: CloudInput, *given: Any) -> CloudInput:
    """What a file or object holds, and what was passed beside it."""
    for name, own, other in zip(CloudInput._fields[1:], read[1:], given, strict=True):
        if own is not None and other is not None:
            raise ValueError(f"{name} is given twice, as an argument and with points; leave one out.")
    return CloudInput(read.points, *(own if own is not None else other for own, other in zip(read[1:], given)))


def _is_graph(value: Any) -> bool:
    return hasattr(value, "pos")


def _is_list_of_sources(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) > 0 and (is_point_cloud_path(value[0]) or _is_graph(value[0]))
    )


def _graph_parts(graph: Any) -> CloudInput:
    """The parts of a PyTorch Geometric `Data`; `y` is read as labels of points if it is one integer per point."""
    if graph.pos is None:
        raise ValueError("points has no coordinates: its .pos is None; set .pos to an array (n, 3).")
    labels = getattr(graph, "y", None)
    if labels is not None:
        labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
        is_per_point = labels.shape in ((len(graph.pos),), (len(graph.pos), 1)) and labels.dtype.kind in "iu"
        labels = labels if is_per_point else None
    return CloudInput(graph.pos, getattr(graph, "normal", None), getattr(graph, "x", None), labels)


def _split_graph(graph: Any) -> list[CloudInput]:
    """The clouds of a PyTorch Geometric `Batch`."""
    whole = _graph_parts(graph)
    cloud_of_point = _as_array(graph.batch, "points.batch")
    arrays = [None if value is None else _as_array(value, name) for name, value in zip(CloudInput._fields, whole)]
    for name, array in zip(("pos", "normal", "x"), arrays):
        if array is not None and array.shape[:1] != cloud_of_point.shape:
            raise ValueError(f"points.{name} has shape {array.shape} and points.batch {cloud_of_point.shape}.")
    num_clouds = int(getattr(graph, "num_graphs", None) or cloud_of_point.max(initial=-1) + 1)
    if num_clouds == 0:
        raise ValueError("points is empty; its .batch has no points.")
    members = [cloud_of_point == index for index in range(num_clouds)]
    return [CloudInput(*(None if array is None else array[member] for array in arrays)) for member in members]


def _depth(value: Any) -> int:
    is_array_of_objects = isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.ndim > 0
    if isinstance(value, (list, tuple)) or is_array_of_objects:
        return 1 + (_depth(value[0]) if len(value) else 0)
    return int(getattr(value, "ndim", 0))


def _match_clouds(values: Any, name: str, num_clouds: int) -> list[Any]:
    if values is None:
        return [None] * num_clouds
    count = len(values) if _depth(values) > 0 else 0
    if count != num_clouds:
        raise ValueError(f"{name} must have one entry per cloud: points has {num_clouds} clouds, {name} has {count}.")
    return list(values)
