"""Random point clouds as model inputs, and the transformations that the invariants speak of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Batch = dict[str, Tensor]


def nearest_other_points(points: Tensor, num_neighbors: int) -> Tensor:
    """Row i lists the nearest other points of point i by distance, filled up with i itself: (n, num_neighbors)."""
    n = len(points)
    distances = (points[:, None] - points[None]).norm(dim=-1)
    distances.fill_diagonal_(torch.inf)
    order = distances.argsort(dim=-1, stable=True)[:, : min(num_neighbors, n - 1)]
    own = torch.arange(n)[:, None].expand(n, num_neighbors - order.shape[1])
    return torch.cat([order, own], dim=-1)


def pad(clouds: Sequence[Batch], length: int) -> Batch:
    """A batch of clouds (tensors without batch dimension), zero-padded to `length` points, with its mask."""
    batch: Batch = {}
    for name in clouds[0]:
        rows = []
        for cloud in clouds:
            value = cloud[name]
            rows.append(torch.cat([value, value.new_zeros((length - len(value), *value.shape[1:]))]))
        batch[name] = torch.stack(rows)
    batch["attention_mask"] = torch.stack([(torch.arange(length) < len(cloud["points"])).long() for cloud in clouds])
    return batch


def random_cloud(
    size: int,
    seed: int,
    num_neighbors: int = 4,
    normals: bool = True,
    num_point_features: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """One cloud of `size` points without batch dimension."""
    generator = torch.Generator().manual_seed(seed)

    def draw(width: int) -> Tensor:
        return torch.randn(size, width, generator=generator, dtype=torch.float64)

    points = draw(3)
    cloud = {"points": points.to(dtype), "neighbor_index": nearest_other_points(points, num_neighbors)}
    if normals:
        cloud["normals"] = torch.nn.functional.normalize(draw(3), dim=-1).to(dtype)
    if num_point_features:
        cloud["point_features"] = draw(num_point_features).to(dtype)
    return cloud


def random_batch(
    sizes: Sequence[int],
    seed: int = 0,
    num_neighbors: int = 4,
    normals: bool = True,
    num_point_features: int = 0,
    dtype: torch.dtype = torch.float64,
    length: int | None = None,
) -> Batch:
    """A padded batch of random clouds of the given sizes."""
    clouds = [
        random_cloud(size, 1000 * seed + row, num_neighbors, normals, num_point_features, dtype)
        for row, size in enumerate(sizes)
    ]
    return pad(clouds, length or max(sizes))


def permute(batch: Batch, permutation: Tensor) -> Batch:
    """The same clouds with point j of the result being point permutation[j]; batch without padding."""
    inverse = permutation.argsort()
    permuted = {name: value[:, permutation] for name, value in batch.items()}
    permuted["neighbor_index"] = inverse[permuted["neighbor_index"]]
    return permuted


def random_orthogonal(seed: int, reflection: bool) -> Tensor:
    """A float64 rotation (3, 3), or a rotation with a reflection."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal().sign()
    return q if (torch.linalg.det(q) < 0) == reflection else -q


def move(batch: Batch, orthogonal: Tensor, shift: Tensor) -> Batch:
    """The clouds turned by `orthogonal` (3, 3) and moved by `shift` (3,); padding stays 0."""
    moved = dict(batch)
    rotation = orthogonal.to(batch["points"].dtype)
    padding = (batch["attention_mask"] == 0)[..., None]
    moved["points"] = (batch["points"] @ rotation.T + shift.to(rotation.dtype)).masked_fill(padding, 0)
    if "normals" in batch:
        moved["normals"] = batch["normals"] @ rotation.T
    return moved
