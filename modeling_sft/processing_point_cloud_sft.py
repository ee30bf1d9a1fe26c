"""The processor of point clouds: arrays or tensors in, padded model inputs out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin

from .augmentation_point_cloud_sft import PointCloudAugmentation

Seed = int | Sequence[int]

NORMAL_ESTIMATION_NEIGHBORS = 16
_LARGEST_VALUE = 1e38
_SUBSAMPLE_STREAM, _AUGMENTATION_STREAM = 0, 1


class SFTPointCloudProcessor(FeatureExtractionMixin):
    """Turns clouds of n points into the inputs of `SFTPointCloudModel`.

    For each cloud, in this order:

    1. `normals` are brought to unit length or, with `use_normals=True`, estimated where missing, from all points;
    2. `num_points` of the points are drawn at random, then augmentation drops points. Both depend on the seed and on
       the number of points alone, so that a cloud and its rotated copy keep the same points;
    3. the cloud is centred and scaled, then augmentation scales and jitters it;
    4. the neighbours are found;
    5. augmentation rotates points and normals, then shifts the points. Because no step before it knows the rotation,
       a cloud augmented with a rotation is exactly the rotated version of the cloud augmented without.

    Everything is computed in float64 and returned in float32.

    Args:
        num_points: how many points of each cloud to keep, drawn uniformly without replacement; smaller clouds keep all
            of theirs and are padded in a batch. None keeps every point of every cloud.
        do_center: subtract the mean of the (kept) points.
        do_scale: divide by the largest distance from the origin, so that it becomes 1. A cloud whose points all
            coincide keeps its scale.
        num_neighbors: k, the number of nearest neighbours listed for each point; 0 leaves `neighbor_index` out.
        use_normals: None passes normals on when they are given; True also estimates them where they are missing;
            False drops them.

    Raises:
        ValueError: for a value outside its range, and for an unknown argument whose name is close to one of these.
    """

    _auto_class = "AutoFeatureExtractor"
    model_input_names = ["points", "normals", "point_features", "neighbor_index", "attention_mask"]

    def __init__(
        self,
        num_points: int | None = None,
        do_center: bool = True,
        do_scale: bool = True,
        num_neighbors: int = 16,
        use_normals: bool | None = None,
        **kwargs: Any,
    ) -> None:
        _refuse_near_misses(kwargs)
        if num_points is not None and (not _is_integer(num_points) or num_points < 1):
            raise ValueError(f"num_points must be an integer of at least 1, or None to keep all; got {num_points!r}.")
        if not _is_integer(num_neighbors) or num_neighbors < 0:
            raise ValueError(f"num_neighbors must be an integer of at least 0; got {num_neighbors!r}.")
        for name, value in (("do_center", do_center), ("do_scale", do_scale)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False; got {value!r}.")
        if use_normals is not None and not isinstance(use_normals, bool):
            raise ValueError(f"use_normals must be None, True or False; got {use_normals!r}.")
        super().__init__(**kwargs)
        self.num_points = None if num_points is None else int(num_points)
        self.do_center = do_center
        self.do_scale = do_scale
        self.num_neighbors = int(num_neighbors)
        self.use_normals = use_normals

    def to_dict(self) -> dict[str, Any]:
        """The content of preprocessor_config.json; names the class for AutoFeatureExtractor and AutoProcessor."""
        output = super().to_dict()
        output["processor_class"] = type(self).__name__
        auto_map = output.get("auto_map", {})
        if "AutoFeatureExtractor" in auto_map:
            auto_map["AutoProcessor"] = auto_map["AutoFeatureExtractor"]
        return output

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in Transformers, but refuses a `from_pretrained` override whose name is close to an argument's."""
        _refuse_near_misses(key for key in kwargs if key not in feature_extractor_dict)
        return super().from_dict(feature_extractor_dict, **kwargs)

    def __call__(
        self,
        points: Any,
        normals: Any = None,
        point_features: Any = None,
        *,
        augmentation: PointCloudAugmentation | None = None,
        seed: Seed | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepares one cloud or several.

        Args:
            points: one cloud (n, 3), a batch (B, n, 3), or a list of B clouds of different sizes; arrays, tensors or
                nested lists of real numbers.
            normals: as `points`, one vector per point, of any length but 0; or None.
            point_features: as `points`, with any number F of columns; or None.
            augmentation: what to change at random; None changes nothing.
            seed: an integer, or several, of at least 0; None means 0. The sub-sample of a cloud depends on it and not
                on the cloud's place in the batch; augmentation differs from cloud to cloud.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            BatchFeature with `points` (B, N, 3) float32, `attention_mask` (B, N) int64, `neighbor_index`
            (B, N, k) int64 and, where there are some, `normals` (B, N, 3) and `point_features` (B, N, F) float32.
            Padding is 0 everywhere.

        Raises:
            ValueError: for shapes, types or values that are no point clouds.
        """
        clouds = _split_into_clouds(points)
        all_normals = _match_clouds(normals, "normals", points, len(clouds))
        all_features = _match_clouds(point_features, "point_features", points, len(clouds))
        words = _seed_words(seed)
        items = []
        for position, cloud in enumerate(clouds):
            try:
                item = self._prepare(
                    cloud, all_normals[position], all_features[position], augmentation, words, (*words, position)
                )
            except ValueError as error:
                if len(clouds) == 1:
                    raise
                raise ValueError(f"Cloud {position} of the batch: {error}") from error
            items.append(item)
        return self.pad(items, return_tensors=return_tensors)

    def preprocess(
        self,
        points: Any,
        normals: Any = None,
        point_features: Any = None,
        augmentation: PointCloudAugmentation | None = None,
        seed: Seed | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Prepares one cloud, without padding.

        Args:
            points: (n, 3); `normals` (n, 3) and `point_features` (n, F) or None.
            augmentation: what to change at random; None changes nothing.
            seed: an integer, or several, of at least 0; None means 0.

        Returns:
            `points` (m, 3) float32, `neighbor_index` (m, k) int64 and, where there are some, `normals` (m, 3) and
            `point_features` (m, F) float32; m is at most `num_points`.

        Raises:
            ValueError: for shapes, types or values that are no point cloud.
        """
        words = _seed_words(seed)
        return self._prepare(points, normals, point_features, augmentation, words, words)

    def _prepare(
        self,
        points: Any,
        normals: Any,
        point_features: Any,
        augmentation: PointCloudAugmentation | None,
        subsample_seed: Sequence[int],
        augmentation_seed: Sequence[int],
    ) -> dict[str, NDArray[Any]]:
        if augmentation is not None and not isinstance(augmentation, PointCloudAugmentation):
            raise ValueError(f"augmentation must be a PointCloudAugmentation or None; got {augmentation!r}.")
        points = _validated_points(points)
        normals = self._unit_normals(points, normals)
        if point_features is not None:
            point_features = _validated_array(point_features, "point_features", len(points))

        kept = self._subsample(len(points), subsample_seed)
        draw = None
        if augmentation is not None:
            draw = augmentation.draw(len(kept), _generator(augmentation_seed, _AUGMENTATION_STREAM))
            kept = kept[draw.kept]
        points = self._normalize(points[kept])
        normals = None if normals is None else normals[kept]
        if draw is not None:
            points = points * draw.scale
            if draw.jitter is not None:
                points = points + draw.jitter
        item: dict[str, NDArray[Any]] = {}
        if self.num_neighbors > 0:
            item["neighbor_index"] = nearest_neighbors(points, self.num_neighbors)
        if draw is not None:
            points = points @ draw.rotation.T + draw.translation
            normals = None if normals is None else normals @ draw.rotation.T
        item["points"] = points.astype(np.float32)
        if normals is not None:
            item["normals"] = normals.astype(np.float32)
        if point_features is not None:
            item["point_features"] = point_features[kept].astype(np.float32)
        return item

    def pad(self, items: Sequence[Mapping[str, Any]], return_tensors: str | None = "pt") -> BatchFeature:
        """Joins the results of `preprocess` into a batch padded with 0 to its largest cloud.

        Args:
            items: at least one result of `preprocess`, all with the same keys; keys that are no model inputs (such as
                labels) are left out.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            BatchFeature as described under `__call__`, with `attention_mask` (B, N) int64: 1 = point, 0 = padding.

        Raises:
            ValueError: for an empty list, items with different keys, or different widths under one key.
        """
        if len(items) == 0:
            raise ValueError("items is empty; pass at least one result of preprocess().")
        names = [name for name in self.model_input_names if name in items[0] and name != "attention_mask"]
        for position, item in enumerate(items):
            if [name for name in self.model_input_names if name in item and name != "attention_mask"] != names:
                raise ValueError(
                    f"items[{position}] has the inputs {sorted(item)} and items[0] has {sorted(items[0])}; normals "
                    "and point_features must be given for all clouds of a batch or for none "
                    "(use_normals=True estimates missing normals, use_normals=False drops them)."
                )
        lengths = [len(item["points"]) for item in items]
        batch: dict[str, NDArray[Any]] = {}
        for name in names:
            arrays = [np.asarray(item[name]) for item in items]
            width = arrays[0].shape[1]
            padded = np.zeros((len(items), max(lengths), width), dtype=arrays[0].dtype)
            for row, array in enumerate(arrays):
                if array.shape != (lengths[row], width):
                    raise ValueError(
                        f"{name} of items[{row}] has shape {array.shape}; expected {(lengths[row], width)}: one row "
                        "per point and as many columns as in items[0]."
                    )
                padded[row, : lengths[row]] = array
            batch[name] = padded
        batch["attention_mask"] = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        return BatchFeature(batch, tensor_type=return_tensors)

    def _unit_normals(self, points: NDArray[np.float64], normals: Any) -> NDArray[np.float64] | None:
        if self.use_normals is False:
            return None
        if normals is None:
            return estimate_normals(points) if self.use_normals else None
        normals = _validated_array(normals, "normals", len(points), columns=3)
        largest = np.abs(normals).max(axis=1, keepdims=True)
        if not largest.all():
            raise ValueError(
                f"normals has {int((largest == 0).sum())} vectors of length 0, which have no direction; leave normals "
                "out and set use_normals=True to estimate them, or use_normals=False to do without."
            )
        normals = normals / largest
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def _subsample(self, num_points: int, seed: Sequence[int]) -> NDArray[np.int64]:
        if self.num_points is None or num_points <= self.num_points:
            return np.arange(num_points)
        return _generator(seed, _SUBSAMPLE_STREAM).choice(num_points, size=self.num_points, replace=False)

    def _normalize(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        largest = np.abs(points).max()
        if self.do_center:
            points = points - points.mean(axis=0)
        if self.do_scale:
            extent = np.abs(points).max()
            # Below this, what the centring left of coinciding points is rounding error.
            if extent > 16 * np.finfo(np.float64).eps * largest:
                points = points / extent
                points = points / np.linalg.norm(points, axis=1).max()
        return points


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
    found = _kd_tree(points).query(points, k=num_found + 1)[1]
    is_own = found == own_index
    # Among many coinciding points a query may miss the point itself: then its last answer is the one too many.
    is_own[~is_own.any(axis=1), -1] = True
    neighbors = found[~is_own].reshape(num_points, num_found)
    fill = np.repeat(own_index, num_neighbors - num_found, axis=1)
    return np.concatenate([neighbors, fill], axis=1).astype(np.int64, copy=False)


def estimate_normals(points: NDArray[Any]) -> NDArray[np.float64]:
    """Unit normals: the direction of least variance among each point and its 16 nearest neighbours.

    Each normal points away from the cloud's centroid, which is outward for closed, roughly convex shapes; on others
    neighbouring normals can have opposite signs. Where the neighbourhood is a line or a single place, or the normal
    is perpendicular to the line to the centroid (all of a flat cloud), direction or sign are arbitrary.

    Args:
        points: (n, 3) finite coordinates.

    Returns:
        (n, 3) float64 unit vectors.
    """
    points = np.asarray(points, dtype=np.float64)
    neighborhood_size = min(NORMAL_ESTIMATION_NEIGHBORS + 1, len(points))
    neighborhoods = _kd_tree(points).query(points, k=range(1, neighborhood_size + 1))[1]
    offsets = points[neighborhoods] - points[:, None]
    offsets = offsets - offsets.mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(offsets.swapaxes(1, 2) @ offsets)[1][:, :, 0]
    outward = np.einsum("ij,ij->i", normals, points - points.mean(axis=0))
    return np.where(outward[:, None] < 0, -normals, normals)


def _kd_tree(points: NDArray[Any]) -> Any:
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise ImportError(
            'Neighbours and normals of point clouds need SciPy: pip install "modeling-sft[pointclouds]".'
        ) from error
    return cKDTree(points)


def _refuse_near_misses(names: Iterable[str]) -> None:
    arguments = ("num_points", "do_center", "do_scale", "num_neighbors", "use_normals")
    for name in names:
        close = difflib.get_close_matches(name, arguments, n=1, cutoff=0.75)
        if close:
            raise ValueError(f"SFTPointCloudProcessor has no argument {name!r}; did you mean {close[0]!r}?")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _seed_words(seed: Seed | None) -> tuple[int, ...]:
    words = (0,) if seed is None else tuple(seed) if isinstance(seed, (tuple, list)) else (seed,)
    if not words or not all(_is_integer(word) and word >= 0 for word in words):
        raise ValueError(f"seed must be an integer of at least 0, a sequence of such integers, or None; got {seed!r}.")
    return tuple(int(word) for word in words)


def _generator(seed: Sequence[int], stream: int) -> np.random.Generator:
    # A plain list of integers would do for neither: NumPy pads it with zeros, so that (1,) and (1, 0) coincide.
    return np.random.default_rng(np.random.SeedSequence((len(seed), *seed), spawn_key=(stream,)))


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


def _validated_array(value: Any, name: str, num_points: int | None, columns: int | None = None) -> NDArray[np.float64]:
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
    if num_points is not None and len(array) != num_points:
        raise ValueError(f"{name} has {len(array)} rows and points has {num_points}; give one row per point.")
    array = array.astype(np.float64)
    # NaN fails the comparison too.
    if not (np.abs(array) <= _LARGEST_VALUE).all():
        raise ValueError(
            f"{name} holds NaN, infinite values or values beyond {_LARGEST_VALUE:g} in size; remove these points, "
            f"for instance by keeping those with np.isfinite({name}).all(axis=1)."
        )
    return array


def _validated_points(value: Any) -> NDArray[np.float64]:
    array = _as_array(value, "points")
    if array.ndim > 0 and len(array) == 0:
        raise ValueError("points is empty; a cloud needs at least one point.")
    return _validated_array(array, "points", None, columns=3)


def _depth(value: Any) -> int:
    is_array_of_objects = isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.ndim > 0
    if isinstance(value, (list, tuple)) or is_array_of_objects:
        return 1 + (_depth(value[0]) if len(value) else 0)
    return int(getattr(value, "ndim", 0))


def _split_into_clouds(points: Any) -> list[Any]:
    depth = _depth(points)
    if depth > 0 and len(points) == 0:
        raise ValueError("points is empty; pass one cloud (n, 3), a batch (B, n, 3) or a list of clouds.")
    if depth not in (2, 3):
        raise ValueError(
            f"points must be one cloud (n, 3), a batch (B, n, 3) or a list of clouds; got {type(points).__name__} "
            f"with {depth} dimensions."
        )
    return [points] if depth == 2 else list(points)


def _match_clouds(values: Any, name: str, points: Any, num_clouds: int) -> list[Any]:
    if values is None:
        return [None] * num_clouds
    if _depth(points) == 2:
        return [values]
    count = len(values) if _depth(values) > 0 else 0
    if count != num_clouds:
        raise ValueError(f"{name} must have one entry per cloud: points has {num_clouds} clouds, {name} has {count}.")
    return list(values)
