"""Samplers of point clouds without learning, for comparisons."""

import torch
from torch import Tensor

from ..nn.functional import gather_rows


def farthest_point_selector(scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None) -> Tensor:
    """Farthest-point sampling of a cloud, for comparisons: `model.set_sampler(farthest_point_selector)`.

    Starts at the point farthest from the centroid. Extra tokens are never chosen.

    Raises:
        ValueError: the modality has no points.
    """
    points = getattr(relation_inputs, "points", None)
    if points is None:
        raise ValueError("`farthest_point_selector` needs a point-cloud model: its inputs have no points.")
    mask = mask[:, : points.shape[1]]
    centroid = (points * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None].clamp(min=1)
    nearest = (points - centroid).square().sum(-1).masked_fill(~mask, -1.0)
    chosen = []
    for step in range(k):
        best = nearest.max(-1)
        chosen.append(torch.where(best.values >= 0, best.indices, -1))
        current = gather_rows(points, best.indices[:, None])
        distance = (points - current).square().sum(-1)
        nearest = torch.where(nearest < 0, nearest, distance if step == 0 else torch.minimum(nearest, distance))
        nearest = nearest.scatter(-1, best.indices[:, None], -1.0)
    return torch.stack(chosen, -1)[:, None]
