"""Geometry of point clouds in torch: neighbours without an (N, N) matrix, and rotation-invariant descriptors.

Call with coordinates of `geometry_dtype` and autocast off. Padded points never influence real ones.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.blocks import in_blocks
from ..nn.functional import gather_rows, sum_dtype

# Elements of one block of distances, about 8 MiB in float32.
PAIR_ELEMENTS = 2**21
NUM_SHAPE_INVARIANTS = 7
NUM_NORMAL_INVARIANTS = 4


def geometry_dtype(x: Tensor) -> torch.dtype:
    """The dtype for coordinates: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def center_points(points: Tensor, mask: Tensor) -> Tensor:
    """Subtract the mean of the real points; padded points become 0.

    Args:
        points: `(B, N, 3)`.
        mask: `(B, N)` bool.
    """
    centered = points.to(sum_dtype(points))
    weight = mask[..., None].to(centered.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    # The second time takes off what rounding left of the mean, which for a cloud far from the origin is much.
    for _ in range(2):
        centered = (centered - (centered * weight).sum(1, keepdim=True) / count) * weight
    return centered.to(points.dtype)


@torch.no_grad()
def nearest_neighbors(points: Tensor, mask: Tensor, k: int) -> Tensor:
    """The k nearest other points of each point, by brute force in blocks of queries.

    Args:
        points: `(B, N, 3)`.
        mask: `(B, N)` bool.
        k: number of neighbours.

    Returns:
        `(B, N, k)` long by increasing distance; a point's own index stands for "no neighbour" where a cloud has fewer
        than k other points.
    """
    batch, length, _ = points.shape
    everyone = torch.arange(length, device=points.device)

    def nearest_of(queries: slice) -> Tensor:
        own = everyone[queries, None]
        distance = _squared_distances(points[:, queries], points)
        distance = distance.masked_fill(~mask[:, None] | (own == everyone), torch.inf)
        nearest = F.pad(distance, (0, k), value=torch.inf).topk(k, dim=-1, largest=False)
        return torch.where(nearest.values < torch.inf, nearest.indices, own)

    return in_blocks(nearest_of, length, max(1, PAIR_ELEMENTS // max(batch * length, 1)))


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    # Coordinate by coordinate: |a|^2 + |b|^2 - 2ab loses the near points to rounding.
    return sum((a[..., None, axis] - b[:, None, :, axis]).square() for axis in range(3))  # type: ignore[return-value]


@torch.no_grad()
def local_invariants(points: Tensor, normals: Tensor | None, neighbor_index: Tensor, with_normals: bool) -> Tensor:
    """Describe the surface around each point by numbers that no rotation, reflection or translation changes.

    Seven describe the shape: radius; mean distance r of the neighbours; the three covariance eigenvalues of the
    neighbourhood over their sum, largest first; distance of the neighbours' centroid over r; cosine between that
    direction and the radial one. Four more need normals: n_i . radial direction; mean n_i.n_j; mean n_i.u_ij; mean
    |n_i.u_ij|, u_ij being the unit vector to neighbour j. No gradient flows to the coordinates.

    Args:
        points: `(B, N, 3)`, centred.
        normals: `(B, N, 3)` unit vectors, or `None`: their four numbers are then 0.
        neighbor_index: `(B, N, k)` long; own index for "no neighbour".
        with_normals: append the four numbers of the normals.

    Returns:
        `(B, N, 7)`, or `(B, N, 11)` with normals.
    """
    batch, length, k = neighbor_index.shape
    describe = partial(_invariants, points, normals, neighbor_index, with_normals)
    return in_blocks(describe, length, max(1, PAIR_ELEMENTS // max(4 * batch * k, 1)))


def _invariants(
    points: Tensor, normals: Tensor | None, neighbor_index: Tensor, with_normals: bool, queries: slice
) -> Tensor:
    """[`local_invariants`] of some of the points."""
    everyone, every_normal = points, normals
    points, neighbor_index = points[:, queries], neighbor_index[:, queries]
    normals = None if normals is None else normals[:, queries]
    own = torch.arange(queries.start, queries.stop, device=points.device)[:, None]
    weight = (neighbor_index != own).to(points.dtype)
    count = weight.sum(-1).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return (x * weight).sum(-1) / count

    radius = points.square().sum(-1).sqrt()
    radial = points / radius.clamp(min=torch.finfo(points.dtype).tiny)[..., None]
    offsets = (gather_rows(everyone, neighbor_index) - points[:, :, None]).unbind(-1)
    distance = (offsets[0].square() + offsets[1].square() + offsets[2].square()).sqrt()
    mean_distance = mean(distance)
    centroid = [mean(offset) for offset in offsets]
    centroid_distance = torch.stack(centroid, -1).square().sum(-1).sqrt()
    along_radial = sum(c * r for c, r in zip(centroid, radial.unbind(-1), strict=True))
    features = [
        radius,
        mean_distance,
        *_eigenvalue_shares(offsets, centroid, mean),
        _divide(centroid_distance, mean_distance),
        _divide(along_radial, centroid_distance),  # type: ignore[arg-type]
    ]
    if with_normals:
        if normals is None or every_normal is None:
            features += [torch.zeros_like(radius)] * NUM_NORMAL_INVARIANTS
        else:
            own_normals = normals.unbind(-1)
            other_normals = gather_rows(every_normal, neighbor_index).unbind(-1)
            along = sum(n[..., None] * o for n, o in zip(own_normals, offsets, strict=True))
            along = _divide(along, distance)  # type: ignore[arg-type]
            facing = sum(n[..., None] * o for n, o in zip(own_normals, other_normals, strict=True))
            features += [(normals * radial).sum(-1), mean(facing), mean(along), mean(along.abs())]  # type: ignore[arg-type]
    return torch.stack(features, -1)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient that is 0 where the denominator vanishes."""
    return torch.where(denominator > 0, numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny), 0.0)


def _eigenvalue_shares(
    offsets: Sequence[Tensor], centroid: Sequence[Tensor], mean: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Eigenvalues of the neighbours' covariance over their sum, in closed form (trigonometric solution)."""
    x, y, z = (offset - c[..., None] for offset, c in zip(offsets, centroid, strict=True))
    xx, yy, zz, xy, xz, yz = mean(x * x), mean(y * y), mean(z * z), mean(x * y), mean(x * z), mean(y * z)
    third = (xx + yy + zz) / 3
    xx, yy, zz = _divide(xx, third) - 1, _divide(yy, third) - 1, _divide(zz, third) - 1
    xy, xz, yz = _divide(xy, third), _divide(xz, third), _divide(yz, third)
    spread = ((xx * xx + yy * yy + zz * zz) / 6 + (xy * xy + xz * xz + yz * yz) / 3).sqrt()
    angle = _deviator_angle(*(_divide(entry, spread) for entry in (xx, yy, zz, xy, xz, yz)))
    real = (third > 0).to(third.dtype)
    largest = (1 + 2 * spread * angle.cos()) / 3
    smallest = (1 + 2 * spread * (angle + 2 * torch.pi / 3).cos()) / 3
    return [largest * real, (1 - largest - smallest) * real, smallest * real]


def _deviator_angle(xx: Tensor, yy: Tensor, zz: Tensor, xy: Tensor, xz: Tensor, yz: Tensor) -> Tensor:
    """The angle t of the eigenvalues 2 cos(t + 2 pi k / 3) of a symmetric matrix with trace 0 and square norm 6.

    cos 3t = det / 2. Where two eigenvalues are close, its arc cosine loses half of the digits. The sine does not: it
    is a sixth of the area that the matrix and the traceless part of its square span.
    """
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    square_xx = xx * xx + xy * xy + xz * xz
    square_yy = xy * xy + yy * yy + yz * yz
    square_zz = xz * xz + yz * yz + zz * zz
    square_xy, square_xz, square_yz = xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - yz * xx
    # Coordinates of both in an orthonormal basis of the traceless symmetric matrices, times the square root of 2.
    root = 3**-0.5
    matrix = [xx - yy, root * (2 * zz - xx - yy), 2 * xy, 2 * xz, 2 * yz]
    square = [
        square_xx - square_yy,
        root * (2 * square_zz - square_xx - square_yy),
        2 * square_xy,
        2 * square_xz,
        2 * square_yz,
    ]
    minors = [matrix[i] * square[j] - matrix[j] * square[i] for i, j in combinations(range(5), 2)]
    sine = sum(minor.square() for minor in minors).sqrt() / 12
    return torch.atan2(sine, determinant / 2) / 3


@torch.no_grad()
def neighbor_pair_features(
    points: Tensor,
    normals: Tensor | None,
    neighbor_index: Tensor,
    queries: slice,
    with_normals: bool,
    with_offsets: bool,
) -> Tensor:
    """Features of some points and each of their neighbours; lengths in units of a point's mean neighbour distance.

    Args:
        points, normals, neighbor_index, with_normals: as in [`local_invariants`].
        queries: the points to describe, both ends given.
        with_offsets: append the offset to the neighbour, which depends on the pose.

    Returns:
        `(B, n, k, F)`: the distance, with normals also n_i.n_j, n_i.u and n_j.u, then the offset (3).
    """
    own = torch.arange(queries.start, queries.stop, device=points.device)[:, None]
    neighbor_index = neighbor_index[:, queries]
    valid = neighbor_index != own
    offset = gather_rows(points, neighbor_index) - points[:, queries, None]
    distance = offset.square().sum(-1).sqrt()
    mean_distance = distance.sum(-1, keepdim=True) / valid.sum(-1, keepdim=True).clamp(min=1)
    features = [_divide(distance, mean_distance)[..., None]]
    if with_normals:
        if normals is None:
            features.append(torch.zeros_like(offset))
        else:
            direction = _divide(offset, distance[..., None])
            mine, other = normals[:, queries, None], gather_rows(normals, neighbor_index)
            products = [(mine * other).sum(-1), (mine * direction).sum(-1), (other * direction).sum(-1)]
            features.append(torch.stack(products, -1))
    if with_offsets:
        features.append(_divide(offset, mean_distance[..., None]))
    return torch.cat(features, -1)
