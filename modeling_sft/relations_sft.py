"""Relations: features phi of a query and a sampled token that scale and shift their attention score.

The score becomes softplus(a_h . phi + ln(e - 1)) * score + b_h . phi per head h (after SFT, arXiv 2408.05822, section
3, with the constant chosen so that a zero start is the identity).
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import maybe_autocast

from .configuration_sft import SFTEncoderConfig, SFTPointCloudConfig
from .sampling_sft import Sample, gather_rows

# softplus(IDENTITY_OFFSET) = 1.
IDENTITY_OFFSET = math.log(math.e - 1)


class PointCloudGeometry(NamedTuple):
    """What the relation of a cloud is computed from.

    Attributes:
        points: `(B, N, 3)`, centred.
        normals: `(B, N, 3)` unit vectors, or `None`.
    """

    points: Tensor
    normals: Tensor | None


class SFTPointCloudRelation(nn.Module):
    """Point-pair features: 1, squared distance, n_i.n_j, n_i.u, n_j.u, with u the unit vector from i to j.

    Without normals only the first two exist. All come from matrix products of inner dimension 3.
    """

    def __init__(self, config: SFTPointCloudConfig):
        super().__init__()
        self.mixes_pairs = config.sampling_estimator == "soft"
        num_features = 2 if config.use_normals is False else 5
        self.scale_weight = nn.Parameter(torch.empty(config.num_attention_heads, num_features))
        self.bias_weight = nn.Parameter(torch.empty(config.num_attention_heads, num_features))

    def prepare(self, geometry: PointCloudGeometry, sample: Sample) -> "PreparedRelation":
        """Gather the sampled points once, for any number of calls with slices of the queries."""
        chosen = self._sampled_geometry(geometry, sample.indices)
        partners = None
        if self.mixes_pairs and sample.partners is not None:
            partners = self._sampled_geometry(geometry, sample.partners)
        return PreparedRelation(self, geometry, chosen, partners, sample.weights)

    @staticmethod
    def _sampled_geometry(geometry: PointCloudGeometry, indices: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        length = geometry.points.shape[1]
        # Extra tokens lie beyond the points; their features are 0.
        is_point = (indices >= 0) & (indices < length)
        indices = torch.where(is_point, indices, 0)
        normals = None if geometry.normals is None else gather_rows(geometry.normals, indices)
        return gather_rows(geometry.points, indices), normals, is_point

    def pair_features(
        self, points_i: Tensor, normals_i: Tensor | None, points_j: Tensor, normals_j: Tensor | None, is_point: Tensor
    ) -> Tensor:
        """phi of queries i and sampled points j.

        Args:
            points_i, normals_i: `(B, 1, n, 3)`.
            points_j, normals_j: `(B, S, K, 3)`.
            is_point: `(B, S, K)` bool.

        Returns:
            `(B, S, R, n, K)`.
        """
        products = points_i @ points_j.mT
        squares_i, squares_j = points_i.square().sum(-1)[..., None], points_j.square().sum(-1)[..., None, :]
        magnitude = squares_i + squares_j
        squared_distance = (magnitude - 2 * products).clamp(min=0)
        features = [torch.ones_like(squared_distance), squared_distance]
        if self.scale_weight.shape[1] > 2:
            if normals_i is None or normals_j is None:
                features += [torch.zeros_like(squared_distance)] * 3
            else:
                # Below the rounding of the difference above, a direction is noise.
                distinct = squared_distance > 16 * torch.finfo(products.dtype).eps * magnitude
                inverse = torch.where(distinct, squared_distance, 1.0).rsqrt() * distinct
                along_i = normals_i @ points_j.mT - (normals_i * points_i).sum(-1)[..., None]
                along_j = (normals_j * points_j).sum(-1)[..., None, :] - points_i @ normals_j.mT
                features += [normals_i @ normals_j.mT, along_i * inverse, along_j * inverse]
        return torch.stack(features, dim=2) * is_point[:, :, None, None]


class PreparedRelation(NamedTuple):
    """A relation bound to a sample; `scale_and_bias` gives its effect on the scores of a slice of queries."""

    relation: SFTPointCloudRelation
    geometry: PointCloudGeometry
    chosen: tuple[Tensor, Tensor | None, Tensor]
    partners: tuple[Tensor, Tensor | None, Tensor] | None
    weights: Tensor | None

    def scale_and_bias(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Factor and summand of the scores of queries `start` to `stop`, each `(B, H, n, K)`."""
        points, normals = self.geometry
        with maybe_autocast(points.device.type, enabled=False):
            points_i = points[:, None, start:stop]
            normals_i = None if normals is None else normals[:, None, start:stop]
            features = self.relation.pair_features(points_i, normals_i, *self.chosen)
            if self.partners is not None and self.weights is not None:
                weights = self.weights[:, :, None, None].to(features.dtype)
                mixed = self.relation.pair_features(points_i, normals_i, *self.partners)
                features = weights * features + (1 - weights) * mixed
            scale_weight, bias_weight = self.relation.scale_weight, self.relation.bias_weight
            if features.shape[1] == 1:
                both = torch.cat([scale_weight, bias_weight]).to(features.dtype)
                projected = both @ features.squeeze(1).flatten(-2)
            else:
                both = torch.stack([scale_weight, bias_weight], dim=1).to(features.dtype)
                projected = (both @ features.flatten(-2)).transpose(1, 2).flatten(1, 2)
            scale, bias = projected.unflatten(-1, features.shape[-2:]).chunk(2, dim=1)
            return F.softplus(scale + IDENTITY_OFFSET), bias


RELATIONS: dict[str, type[nn.Module]] = {"point_cloud": SFTPointCloudRelation}


def build_relation(config: SFTEncoderConfig) -> Any:
    """The relation module of the configuration's modality, or `None` where `relation` is off."""
    return RELATIONS[config.modality](config) if config.relation else None


__all__ = ["PointCloudGeometry", "SFTPointCloudRelation", "build_relation"]
