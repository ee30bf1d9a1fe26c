"""Rotation invariants that place a point in its whole cloud: contractions with the cloud's second and third moments.

For x with moments C = 3 mean(x x^T) and v = 8 mean(|x|^2 x), lengths in root mean square radii, the numbers x.x,
x^T C x and x^T C^2 x determine the squared coordinates of x along the principal axes, and x.v, x^T C v and x^T C^2 v
its side of the cloud. No frame is chosen: a frame would jump where principal axes tie, polynomials do not. The
factors bring all numbers near 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..nn.functional import sum_dtype

NUM_MOMENT_INVARIANTS = 6
NUM_NORMAL_MOMENT_INVARIANTS = 6


class CloudMoments(NamedTuple):
    """Moments of a batch of clouds, in units of each cloud's root mean square radius."""

    inverse_radius: Tensor
    """`(B, 1, 1)`, one over the root mean square radius."""
    covariance: Tensor
    """`(B, 3, 3)`, C; its trace is 3."""
    vectors: Tensor
    """`(B, 3, 3)`, v, C v and C^2 v."""


def cloud_moments(points: Tensor, mask: Tensor) -> CloudMoments:
    """Moments of the points `(B, N, 3)`, centred and 0 where the mask `(B, N)` is `False`."""
    dtype, points = points.dtype, points.to(sum_dtype(points))
    count = mask.sum(1).clamp(min=1).to(points.dtype)[:, None, None]
    square_radius = points.square().sum((1, 2))[:, None, None] / count
    # A cloud in a single place has no moments: any unit does.
    inverse_radius = torch.where(square_radius > 0, square_radius, torch.ones_like(square_radius)).rsqrt()
    points = points * inverse_radius
    covariance = 3 * points.mT @ points / count
    skew = 8 * (points.square().sum(-1, keepdim=True) * points).sum(1, keepdim=True) / count
    vectors = torch.cat([skew, skew @ covariance, skew @ covariance @ covariance], dim=1)
    return CloudMoments(inverse_radius.to(dtype), covariance.to(dtype), vectors.to(dtype))


def moment_invariants(points: Tensor, normals: Tensor | None, moments: CloudMoments, with_normals: bool) -> Tensor:
    """Invariants of each point under rotations and reflections about the origin, and under scaling.

    Args:
        points: `(B, N, 3)`, centred: all points of the clouds, or some.
        normals: `(B, N, 3)` unit, or `None`: their invariants are then 0.
        moments: of the whole clouds.
        with_normals: append the invariants of the normals.

    Returns:
        `(B, N, 6)`: y^T C y, y^T C^2 y, y.v, y^T C v and y^T C^2 v of y = x over the root mean square radius, and
        tr C^2 / 3 - 1; with normals `(B, N, 12)`: also the first five of y = n, and n^T C x.
    """
    covariance = moments.covariance

    def contract(y: Tensor) -> tuple[Tensor, list[Tensor]]:
        image = y @ covariance
        return image, [(image * y).sum(-1), image.square().sum(-1), *(y @ moments.vectors.mT).unbind(-1)]

    image, features = contract(points * moments.inverse_radius)
    features.append((covariance.square().sum((1, 2)) / 3 - 1)[:, None].expand(points.shape[:2]))
    if with_normals and normals is None:
        features += [torch.zeros_like(features[0])] * NUM_NORMAL_MOMENT_INVARIANTS
    elif with_normals and normals is not None:
        features += [*contract(normals)[1], (image * normals).sum(-1)]
    return torch.stack(features, dim=-1)
