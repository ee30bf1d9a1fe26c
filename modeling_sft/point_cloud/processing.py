"""The processor of point clouds: arrays, files or PyTorch Geometric objects in, padded model inputs out."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.feature_extraction_utils import BatchFeature

from ..hub.arguments import refuses_unknown_arguments
from ..hub.processing import SFTProcessor, prepared
from ..hub.values import require_integer
from ..nn.checks import IGNORED_LABEL, LARGEST_COORDINATE
from .augmentation import PointCloudAugmentation
from .files import is_point_cloud_path
from .inputs import CloudInput, read_cloud, split_into_clouds, validated_array, validated_labels, validated_points
from .neighbors import farthest_points, nearest_neighbors
from .normals import estimate_normals
from .seeding import AUGMENTATION_STREAM, SUBSAMPLE_STREAM, Seed, generator, seed_words

POINT_SAMPLINGS = ("random", "farthest")
# A file of settings must not decide that memory is filled.
MAX_NEIGHBORS = 2**12
MAX_MESH_POINTS = 2**24


class SFTPointCloudProcessor(SFTProcessor):
    """Turns clouds of n points into the inputs of `SFTPointCloudModel`.

    For each cloud, in this order:

    1. a path is read by `load_point_cloud`, which draws `num_mesh_points` points from a mesh;
    2. `normals` are brought to unit length or, with `use_normals=True`, estimated where missing, from all points;
    3. `num_points` of the points are chosen, then augmentation drops points. Both depend on the seed and the number
       of points, or on distances alone, so that a cloud and its rotated copy keep the same points;
    4. the cloud is centred and scaled, then augmentation scales and jitters it;
    5. the neighbours are found;
    6. augmentation rotates points and normals, then shifts the points. Because no step before it knows the rotation,
       a cloud augmented with a rotation is exactly the rotated version of the cloud augmented without.

    Everything is computed in float64 and returned in float32.

    Args:
        num_points: how many points of each cloud to keep; smaller clouds keep all of theirs and are padded in a batch.
            None keeps every point of every cloud.
        do_center: subtract the mean of the (kept) points.
        do_scale: divide by the largest distance from the origin, so that it becomes 1. A cloud whose points all
            coincide keeps its scale.
        num_neighbors: k, the number of nearest neighbours listed for each point; 0 leaves `neighbor_index` out.
        use_normals: None passes normals on when they are given; True also estimates them where they are missing; False
            drops them.
        point_sampling: how `num_points` are chosen: "random" draws them uniformly without replacement; "farthest"
            takes the point farthest from the centroid, then always the one farthest from those taken (Eldar et al.,
            "The farthest point strategy", 1997), whatever the seed.
        num_mesh_points: how many points to draw from a mesh that is passed as a path.

    Raises:
        TypeError: for an unknown argument.
        ValueError: for a value outside its range.
    """

    model_input_names = ["points", "normals", "point_features", "neighbor_index", "attention_mask"]

    def __init__(
        self,
        num_points: int | None = None,
        do_center: bool = True,
        do_scale: bool = True,
        num_neighbors: int = 16,
        use_normals: bool | None = None,
        point_sampling: str = "random",
        num_mesh_points: int = 2048,
        **kwargs: Any,
    ) -> None:
        require_integer("num_points", num_points, 1, or_none="to keep all")
        require_integer("num_neighbors", num_neighbors, 0, MAX_NEIGHBORS)
        for name, value in (("do_center", do_center), ("do_scale", do_scale)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False; got {value!r}.")
        if use_normals is not None and not isinstance(use_normals, bool):
            raise ValueError(f"use_normals must be None, True or False; got {use_normals!r}.")
        if point_sampling not in POINT_SAMPLINGS:
            raise ValueError(f"point_sampling must be one of {', '.join(POINT_SAMPLINGS)}; got {point_sampling!r}.")
        require_integer("num_mesh_points", num_mesh_points, 1, MAX_MESH_POINTS)
        super().__init__(**kwargs)
        self.num_points = None if num_points is None else int(num_points)
        self.do_center = do_center
        self.do_scale = do_scale
        self.num_neighbors = int(num_neighbors)
        self.use_normals = use_normals
        self.point_sampling = point_sampling
        self.num_mesh_points = int(num_mesh_points)

    @refuses_unknown_arguments()
    def __call__(
        self,
        points: Any,
        normals: Any = None,
        point_features: Any = None,
        point_labels: Any = None,
        *,
        augmentation: PointCloudAugmentation | None = None,
        seed: Seed | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepares one cloud or several.

        Args:
            points: one cloud (n, 3), a batch (B, n, 3), or a list of B clouds of different sizes; arrays, tensors or
                nested lists of real numbers. A cloud may also be a path (see `load_point_cloud`), whose normals are
                those of the file, or a PyTorch Geometric `Data`: `.pos` are the points, `.normal` the normals, `.x`
                the features and `.y`, if it is one integer per point, the labels of points. A `Batch` is split.
            normals: as `points`, one vector per point, of any length but 0; or None.
            point_features: as `points`, with any number F of columns; or None.
            point_labels: one class per point, (n,), (B, n) or a list of (n,): integers from 0, or -100 for points
                without a label; or None.
            augmentation: what to change at random; None changes nothing.
            seed: an integer, or several, of at least 0; None means 0. The points drawn from a mesh and the sub-sample
                of a cloud depend on it and not on the cloud's place in the batch; augmentation differs from cloud to
                cloud.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            BatchFeature with `points` (B, N, 3) float32, `attention_mask` (B, N) int64, `neighbor_index`
            (B, N, k) int64 and, where there are some, `normals` (B, N, 3) and `point_features` (B, N, F) float32 and
            `labels` (B, N) int64, the labels of points. Padding is -100 in `labels` and 0 everywhere else.

        Raises:
            ValueError: for shapes, types or values that are no point clouds, and for files that cannot be read.
            ImportError: for a file whose library is not installed.
        """
        clouds = split_into_clouds(CloudInput(points, normals, point_features, point_labels))
        words = seed_words(seed)

        def prepare(position: int, cloud: CloudInput) -> dict[str, NDArray[Any]]:
            return self._prepare(cloud, augmentation, words, (*words, position))

        items = prepared("Cloud", clouds, prepare)
        return self.pad(items, return_tensors=return_tensors)

    def preprocess(
        self,
        points: Any,
        normals: Any = None,
        point_features: Any = None,
        point_labels: Any = None,
        augmentation: PointCloudAugmentation | None = None,
        seed: Seed | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Prepares one cloud, without padding.

        Args:
            points: (n, 3), a path or a PyTorch Geometric `Data`, as described under `__call__`.
            normals: (n, 3) or None.
            point_features: (n, F) or None.
            point_labels: (n,) integers or None.
            augmentation: what to change at random; None changes nothing.
            seed: an integer, or several, of at least 0; None means 0.

        Returns:
            `points` (m, 3) float32, `neighbor_index` (m, k) int64 and, where there are some, `normals` (m, 3) and
            `point_features` (m, F) float32 and `point_labels` (m,) int64; m is at most `num_points`.

        Raises:
            ValueError: for shapes, types or values that are no point cloud, and for a file that cannot be read.
            ImportError: for a file whose library is not installed.
        """
        words = seed_words(seed)
        cloud = CloudInput(points, normals, point_features, point_labels)
        return self._prepare(cloud, augmentation, words, words)

    def _prepare(
        self,
        cloud: CloudInput,
        augmentation: PointCloudAugmentation | None,
        subsample_seed: Sequence[int],
        augmentation_seed: Sequence[int],
    ) -> dict[str, NDArray[Any]]:
        if augmentation is not None and not isinstance(augmentation, PointCloudAugmentation):
            raise ValueError(f"augmentation must be a PointCloudAugmentation or None; got {augmentation!r}.")
        arrays = read_cloud(cloud, self.num_mesh_points, subsample_seed)
        try:
            return self._prepare_arrays(arrays, augmentation, subsample_seed, augmentation_seed)
        except ValueError as error:
            if not is_point_cloud_path(cloud.points):
                raise
            raise ValueError(f"{os.fspath(cloud.points)!r}: {error}") from error

    def _prepare_arrays(
        self,
        cloud: CloudInput,
        augmentation: PointCloudAugmentation | None,
        subsample_seed: Sequence[int],
        augmentation_seed: Sequence[int],
    ) -> dict[str, NDArray[Any]]:
        points = validated_points(cloud.points)
        normals = self._unit_normals(points, cloud.normals)
        point_features, point_labels = cloud.point_features, cloud.point_labels
        if point_features is not None:
            point_features = validated_array(point_features, "point_features", len(points))
        if point_labels is not None:
            point_labels = validated_labels(point_labels, len(points))

        kept = self._subsample(points, subsample_seed)
        draw = None
        if augmentation is not None:
            draw = augmentation.draw(len(kept), generator(augmentation_seed, AUGMENTATION_STREAM))
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
        if np.abs(points).max() > LARGEST_COORDINATE:
            raise ValueError(
                f"points holds values beyond {LARGEST_COORDINATE:g} in size, whose squares are too large: set "
                "do_center=True and do_scale=True, or scale the data."
            )
        item["points"] = points.astype(np.float32)
        if normals is not None:
            item["normals"] = normals.astype(np.float32)
        if point_features is not None:
            item["point_features"] = point_features[kept].astype(np.float32)
        if point_labels is not None:
            item["point_labels"] = point_labels[kept]
        return item

    def pad(self, items: Sequence[Mapping[str, Any]], return_tensors: str | None = "pt") -> BatchFeature:
        """Joins the results of `preprocess` into a batch padded to its largest cloud.

        Args:
            items: at least one result of `preprocess`, all with the same keys; `point_labels` are returned as
                `labels`, other keys that are no model inputs (such as the label of the cloud) are left out.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            BatchFeature as described under `__call__`, with `attention_mask` (B, N) int64: 1 = point, 0 = padding.

        Raises:
            ValueError: for an empty list, items with different keys, different widths under one key, or other numbers
                of labels than points.
        """
        if len(items) == 0:
            raise ValueError("items is empty; pass at least one result of preprocess().")
        known = [name for name in (*self.model_input_names, "point_labels") if name != "attention_mask"]
        names = [name for name in known if name in items[0]]
        for position, item in enumerate(items):
            if [name for name in known if name in item] != names:
                raise ValueError(
                    f"items[{position}] has the inputs {sorted(item)} and items[0] has {sorted(items[0])}; normals, "
                    "point_features and point_labels must be given for all clouds of a batch or for none "
                    "(use_normals=True estimates missing normals, use_normals=False drops them)."
                )
        lengths = [len(item["points"]) for item in items]
        batch: dict[str, NDArray[Any]] = {}
        for name in names:
            arrays = [np.asarray(item[name]) for item in items]
            width = arrays[0].shape[1:]
            padding = IGNORED_LABEL if name == "point_labels" else 0
            padded = np.full((len(items), max(lengths), *width), padding, dtype=arrays[0].dtype)
            for row, array in enumerate(arrays):
                if array.shape != (lengths[row], *width):
                    raise ValueError(
                        f"{name} of items[{row}] has shape {array.shape}; expected {(lengths[row], *width)}: one row "
                        "per point and as many columns as in items[0]."
                    )
                padded[row, : lengths[row]] = array
            batch["labels" if name == "point_labels" else name] = padded
        batch["attention_mask"] = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        return BatchFeature(batch, tensor_type=return_tensors)

    def _unit_normals(self, points: NDArray[np.float64], normals: Any) -> NDArray[np.float64] | None:
        if self.use_normals is False:
            return None
        if normals is None:
            return estimate_normals(points) if self.use_normals else None
        normals = validated_array(normals, "normals", len(points), columns=3)
        largest = np.abs(normals).max(axis=1, keepdims=True)
        if not largest.all():
            raise ValueError(
                f"normals has {int((largest == 0).sum())} vectors of length 0, which have no direction; leave normals "
                "out and set use_normals=True to estimate them, or use_normals=False to do without."
            )
        normals = normals / largest
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def _subsample(self, points: NDArray[np.float64], seed: Sequence[int]) -> NDArray[np.int64]:
        if self.num_points is None or len(points) <= self.num_points:
            return np.arange(len(points))
        if self.point_sampling == "farthest":
            return farthest_points(points, self.num_points)
        return generator(seed, SUBSAMPLE_STREAM).choice(len(points), size=self.num_points, replace=False)

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
