"""The relation of clouds: point-pair features, from one factor of each point (docs/design.md, section 5)."""

import itertools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from ..attention.relation import Effect, Gradient, SFTRelation, effect_of
from ..configuration_sft import SFTPointCloudConfig
from ..nn.functional import gather_rows
from ..sampling.sample import Sample


class PointCloudGeometry(NamedTuple):
    """What the relation of a cloud is computed from.

    Attributes:
        points: `(B, N, 3)`, centred.
        normals: `(B, N, 3)` unit vectors, or `None`.
    """

    points: Tensor
    normals: Tensor | None


class PreparedPairFeatures(NamedTuple):
    """A relation bound to a sample: the tensors from which the effect on the scores is computed, tile by tile.

    The features of a query and a sampled token are products of one factor of each, but for directions, which are
    divided by the distance. So no tensor here has both N and K.

    Attributes:
        weight: `(S, 2 H / S, R)`, rows of `scale_weight` and of `bias_weight` for the heads of each sample.
        query_factors: `(B, 1, R', N, F)`; with normals, R' = R + 1: the last one tells coincident points.
        key_factors: `(B, S, R', F, K)`, 0 for extra tokens.
        partner_factors: likewise of the partners, where relation features are mixed; else `None`.
        mixing_weights: `(B, S, K)`, weight of the sampled token in its mixture; `None` without partners.
    """

    weight: Tensor
    query_factors: Tensor
    key_factors: Tensor
    partner_factors: Tensor | None
    mixing_weights: Tensor | None

    def rows(self, rows: slice) -> "PreparedPairFeatures":
        """The same for some rows of the batch."""
        by_row: Any = (None if tensor is None else tensor[rows] for tensor in self[1:])
        return PreparedPairFeatures(self.weight, *by_row)

    def queries(self, queries: slice) -> "PreparedPairFeatures":
        """The same for some queries."""
        return self._replace(query_factors=self.query_factors[:, :, :, queries])

    def with_fixed_sizes(self) -> "PreparedPairFeatures":
        """The same: its sizes are fixed."""
        return self

    def features(self) -> Tensor:
        """phi, `(B, S, R, N, K)`; call with autocast off."""
        features = pair_features(self.query_factors, self.key_factors)
        if self.partner_factors is None or self.mixing_weights is None:
            return features
        share = self.mixing_weights[:, :, None, None].to(features.dtype)
        return torch.lerp(pair_features(self.query_factors, self.partner_factors), features, share)

    def kernel_operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights by head, and what [`PreparedPairFeatures.geometry`] returns.

        Raises:
            ValueError: features of pairs are mixed, or points and normals need gradients.
        """
        if self.mixing_weights is not None:
            raise ValueError('`sft_triton` has no relation of mixed pairs (`sampling_estimator="soft"`).')
        if self.query_factors.requires_grad or self.key_factors.requires_grad:
            raise ValueError("`sft_triton` has no gradients of points and normals.")
        return self.weight_by_head(), *self.geometry()

    def geometry(self) -> tuple[Tensor, Tensor]:
        """Points, with normals if R = 5, and for keys what tells points (1) from extra tokens (0).

        Returns:
            Of queries `(B, C, N)` and of sampled tokens `(B, S, C + 1, K)`, C = 3 or 6.
        """
        query, key = self.query_factors.mT, self.key_factors
        queries, keys = [query[:, 0, 1, :3]], [-key[:, :, 1, :3] / 2]
        if self.weight.shape[-1] > 2:
            queries.append(query[:, 0, 2, :3])
            keys.append(key[:, :, 2, :3])
        return torch.cat(queries, dim=1), torch.cat([*keys, key[:, :, 0, :1]], dim=2)

    def weight_by_head(self) -> Tensor:
        """Rows of `scale_weight` and of `bias_weight`, `(2, H, R)`."""
        return self.weight.unflatten(1, (2, -1)).transpose(0, 1).flatten(1, 2)

    def effect(self) -> Effect:
        """Factor and summand of the scores, each `(B, H, N, K)`; call with autocast off."""
        features = self.features()
        return effect_of(*_project(features, self.weight.to(features.dtype)))

    def with_gradient(self, needs_grad: tuple[bool, ...]) -> tuple[Effect, Gradient]:
        """`effect` without a graph, and the function that adds its gradients to those of these tensors.

        Args:
            needs_grad: which of the tensors get a gradient; the function leaves the others alone.
        """
        rest: Any = [
            tensor if tensor is None else tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(self[1:], needs_grad[1:], strict=True)
        ]
        leaves = PreparedPairFeatures(self.weight, *rest)
        with torch.set_grad_enabled(any(needs_grad[1:])):
            features = leaves.features()
        flat, weight = features.detach(), self.weight.to(features.dtype)
        with torch.no_grad():
            effect = effect_of(*_project(flat, weight))

        def gradient(grad_scale: Tensor, grad_bias: Tensor, target: PreparedPairFeatures) -> None:
            through_features = features.requires_grad
            grad_features, grad_weight = _gradients(
                flat, weight, effect.scale, grad_scale, grad_bias, through_features
            )
            if needs_grad[0]:
                target.weight.add_(grad_weight)
            if through_features:
                wanted = list(itertools.compress(rest, needs_grad[1:]))
                found = torch.autograd.grad(features, wanted, grad_features)
                for into, part in zip(itertools.compress(target[1:], needs_grad[1:]), found, strict=True):
                    into.add_(part)

        return effect, gradient


def pair_features(query_factors: Tensor, key_factors: Tensor) -> Tensor:
    """Phi of queries and sampled points from their factors (see [`PreparedPairFeatures`]): `(B, S, R, N, K)`."""
    products = query_factors @ key_factors
    squared_distance = products[:, :, 1:2].clamp(min=0)
    if products.shape[2] == 2:
        return torch.cat([products[:, :, :1], squared_distance], dim=2)
    # Below the rounding of the squared distance, a direction is noise. One pass selects; a comparison and a `where`
    # take far longer on CPU.
    inverse_distance = squared_distance.clamp(min=1e-24).rsqrt()
    inverse_distance = torch.ops.aten.threshold_backward(inverse_distance, products[:, :, 5:6], 0)
    directions = products[:, :, 3:5] * inverse_distance
    if products.requires_grad:
        return torch.cat([products[:, :, :1], squared_distance, products[:, :, 2:3], directions], dim=2)
    products[:, :, 1:2] = squared_distance
    products[:, :, 3:5] = directions
    return products[:, :, :5]


def _project(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A . phi and b . phi: `(B, S, R, N, K)` and `(S, 2 H / S, R)` to two of `(B, H, N, K)`."""
    batch, _, _, queries, keys = features.shape
    projected = weight @ features.flatten(-2)
    a, b = projected.view(batch, weight.shape[0], 2, -1, queries, keys).unbind(2)
    return a.flatten(1, 2), b.flatten(1, 2)


def _gradients(
    features: Tensor, weight: Tensor, scale: Tensor, grad_scale: Tensor, grad_bias: Tensor, through_features: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients of the effect to weight and, if wanted, to features."""
    shape = (features.shape[0], weight.shape[0], -1, features.shape[-2] * features.shape[-1])
    # The derivative of softplus is 1 - exp(-softplus).
    slope = scale.neg().expm1_().mul_(grad_scale).neg_().reshape(shape)
    grad_bias, pairs = grad_bias.reshape(shape), features.flatten(-2).mT
    grad_weight = torch.cat([(slope @ pairs).sum(0), (grad_bias @ pairs).sum(0)], dim=1)
    if not through_features:
        return None, grad_weight
    to_scale, to_bias = weight.mT.chunk(2, dim=-1)
    return (to_scale @ slope + to_bias @ grad_bias).view_as(features), grad_weight


class SFTPointCloudRelation(SFTRelation):
    """Point-pair features: 1, squared distance, n_i.n_j, n_i.u, n_j.u, with u the unit vector from i to j.

    Without normals only the first two exist. All come from matrix products of small inner dimension.
    """

    def __init__(self, config: SFTPointCloudConfig):
        super().__init__(config, num_features=2 if config.use_normals is False else 5)

    def prepare(self, geometry: PointCloudGeometry, sample: Sample) -> PreparedPairFeatures:
        """Bind the relation to a sample: factors of all points as queries and of the sampled ones as keys."""
        points, normals = geometry
        with maybe_autocast(points.device.type, enabled=False):
            samples = sample.indices.shape[1]
            weight = torch.stack([self.scale_weight, self.bias_weight]).unflatten(1, (samples, -1))
            weight = weight.transpose(0, 1).flatten(1, 2)
            partner_factors = mixing_weights = None
            if self.mixes_pairs and sample.partners is not None:
                partner_factors = self._key_factors(geometry, sample.partners)
                mixing_weights = sample.weights
            query_factors = self._query_factors(points[:, None], None if normals is None else normals[:, None])
            key_factors = self._key_factors(geometry, sample.indices)
        return PreparedPairFeatures(weight, query_factors, key_factors, partner_factors, mixing_weights)

    def _stack(self, *factors: tuple[Tensor, ...]) -> Tensor:
        """Five components per factor, zeros behind those given: `(..., N, 3)` and `(..., N, 1)` parts."""
        rows = [torch.cat(parts, dim=-1) for parts in factors]
        return torch.stack([F.pad(row, (0, 5 - row.shape[-1])) for row in rows], dim=2)

    def _query_factors(self, points: Tensor, normals: Tensor | None) -> Tensor:
        one, square = torch.ones_like(points[..., :1]), points.square().sum(-1, keepdim=True)
        factors: list[tuple[Tensor, ...]] = [(one,), (points, square, one)]
        # The squared distance less 16 times the rounding of its summands.
        less = 1 - 16 * torch.finfo(points.dtype).eps
        above_rounding = (points, less * square, less * one)
        if self.scale_weight.shape[1] > 2:
            normals = torch.zeros_like(points) if normals is None else normals
            along = (normals * points).sum(-1, keepdim=True)
            factors += [(normals,), (normals, -along), (points, one), above_rounding]
        return self._stack(*factors)

    def _key_factors(self, geometry: PointCloudGeometry, indices: Tensor) -> Tensor:
        # Extra tokens lie beyond the points; their features are 0.
        is_point = (indices >= 0) & (indices < geometry.points.shape[1])
        indices = torch.where(is_point, indices, 0)
        points = gather_rows(geometry.points, indices)
        one, square = torch.ones_like(points[..., :1]), points.square().sum(-1, keepdim=True)
        factors: list[tuple[Tensor, ...]] = [(one,), (-2 * points, one, square)]
        if self.scale_weight.shape[1] > 2:
            normals = torch.zeros_like(points) if geometry.normals is None else gather_rows(geometry.normals, indices)
            along = (normals * points).sum(-1, keepdim=True)
            factors += [(normals,), (points, one), (-normals, along), factors[1]]
        return (self._stack(*factors) * is_point[:, :, None, :, None]).mT
