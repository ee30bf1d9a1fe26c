"""SFT for point clouds: backbone, and heads for whole clouds and points (arXiv 2408.05822)."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..configuration_sft import SFTPointCloudConfig
from ..encoder.encoder import SFTEncoder
from ..encoder.heads import SFTClassificationHead, SFTSegmentationHead, answer
from ..encoder.outputs import SFTClassifierOutput, SFTModelOutput
from ..encoder.pretrained import FORWARD_OPTIONS, SFTPreTrainedModel
from ..hub.arguments import refuses_unknown_arguments
from ..nn.checks import check_coordinates, check_finite, check_neighbors, check_range, check_shape, resolve_mask
from ..nn.functional import sum_tokens
from ..nn.initialization import unit_variance_linear
from ..nn.norms import build_norm
from .geometry import (
    NUM_NORMAL_INVARIANTS,
    NUM_SHAPE_INVARIANTS,
    center_points,
    geometry_dtype,
    local_invariants,
    nearest_neighbors,
)
from .local_mixing import SFTEdgeMixing
from .moments import NUM_MOMENT_INVARIANTS, NUM_NORMAL_MOMENT_INVARIANTS, cloud_moments, moment_invariants
from .relation import PointCloudGeometry, SFTPointCloudRelation

# What is kept of the state that all points of a cloud share.
COMMON_PART = 0.1
# Where a search for neighbours among all pairs is no longer cheap.
MANY_POINTS = 16_384

logger = logging.get_logger(__name__)


class SFTPointCloudPreTrainedModel(SFTPreTrainedModel):
    """Base of the point-cloud models."""

    config: SFTPointCloudConfig
    relation_class = SFTPointCloudRelation
    main_input_name = "points"
    input_modalities: Any = ("point_cloud",)
    _input_embed_layer = "embeddings"


class SFTPointCloudEmbeddings(nn.Module):
    """Embeds points by invariants of their neighbourhood and of their place in the cloud, and maybe coordinates."""

    def __init__(self, config: SFTPointCloudConfig):
        super().__init__()
        self.rotation_invariant = config.rotation_invariant
        self.with_normals = config.use_normals is not False
        num_features = NUM_SHAPE_INVARIANTS + config.num_point_features
        if self.with_normals:
            num_features += NUM_NORMAL_INVARIANTS
        self.with_moments = config.moment_invariants
        if self.with_moments:
            num_features += NUM_MOMENT_INVARIANTS + (NUM_NORMAL_MOMENT_INVARIANTS if self.with_normals else 0)
        if not self.rotation_invariant:
            num_features += 6 if self.with_normals else 3
        self.input_proj = unit_variance_linear(num_features, config.hidden_size)
        self.activation = nn.GELU()
        self.hidden_proj = unit_variance_linear(config.hidden_size, config.hidden_size)
        self.category_embeddings = (
            nn.Embedding(config.num_categories, config.hidden_size) if config.num_categories else None
        )
        self.local_mixing = SFTEdgeMixing(config) if config.local_mixing else None
        self.norm = build_norm(config)

    def forward(
        self,
        points: Tensor,
        geometry: PointCloudGeometry,
        point_features: Tensor | None,
        neighbor_index: Tensor,
        category: Tensor | None,
        mask: Tensor,
    ) -> Tensor:
        """Embed a batch of clouds, `(B, N, D)`; arguments as in [`SFTPointCloudModel`], geometry centred."""
        centered, normals = geometry
        with maybe_autocast(points.device.type, enabled=False):
            features = [local_invariants(centered, normals, neighbor_index, self.with_normals)]
            if self.with_moments:
                moments = cloud_moments(centered, mask)
                features.append(moment_invariants(centered, normals, moments, self.with_normals))
            if not self.rotation_invariant:
                features.append(points)
                if self.with_normals:
                    features.append(torch.zeros_like(points) if normals is None else normals)
            if point_features is not None:
                features.append(point_features.to(centered.dtype))
            inputs = torch.cat([feature.to(centered.dtype) for feature in features], dim=-1)
        inputs = inputs.to(self.input_proj.weight.dtype)
        hidden_states = self.hidden_proj(self.activation(self.input_proj(inputs)))
        if self.local_mixing is not None:
            hidden_states = self.local_mixing(hidden_states, centered, normals, neighbor_index)
        hidden_states = self._shrink_common_part(hidden_states, mask)
        if self.category_embeddings is not None:
            hidden_states = hidden_states + self.category_embeddings(category.long())[:, None]
        return self.norm(hidden_states, mask)

    @staticmethod
    def _shrink_common_part(hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Scale the cloud's mean state down: it dwarfs the differences of points, and scores live on differences.

        Nearly parallel states would leave whole heads of relu attention empty from the start.
        """
        weight = mask[..., None].to(hidden_states.dtype)
        mean = sum_tokens(hidden_states * weight) / weight.sum(1, keepdim=True).clamp(min=1)
        return hidden_states - (1 - COMMON_PART) * mean


class SFTPointCloudModel(SFTPointCloudPreTrainedModel):
    """The point-cloud backbone: one state per point.

    Args:
        config: sizes and choices of the model.
    """

    auto_class_name = "AutoModel"

    def __init__(self, config: SFTPointCloudConfig):
        super().__init__(config)
        self.embeddings = SFTPointCloudEmbeddings(config)
        self.encoder = SFTEncoder(config, relation=self.relation_class)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        points: Tensor,
        normals: Tensor | None = None,
        point_features: Tensor | None = None,
        neighbor_index: Tensor | None = None,
        category: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTModelOutput:
        """Encode clouds.

        Args:
            points: `(B, N, 3)` float coordinates, best centred and scaled to radius 1 (the processor does it).
            normals: `(B, N, 3)` float unit normals; see `use_normals` of the configuration.
            point_features: `(B, N, num_point_features)` float.
            neighbor_index: `(B, N, k)` long, k at least `num_neighbors`: the nearest other points of each point,
                nearest first, a point's own index for "none". Computed in O(N^2) time, blockwise, when absent.
            category: `(B,)` long shape category, when `num_categories` is set.
            attention_mask: `(B, N)`, 1 for real points and 0 for padding.
            kwargs: `output_hidden_states`, `output_attentions`, `output_sampled_tokens`, `output_importance_scores`,
                `return_dict`.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        mask = self._check_inputs(points, normals, point_features, neighbor_index, category, attention_mask)
        dtype = geometry_dtype(points)
        with maybe_autocast(points.device.type, enabled=False):
            # Padding may hold anything, NaN too: it must not reach a sum.
            points = points.to(dtype).masked_fill(~mask[..., None], 0.0)
            normals = None if normals is None else normals.to(dtype).masked_fill(~mask[..., None], 0.0)
            point_features = None if point_features is None else point_features.masked_fill(~mask[..., None], 0.0)
            geometry = PointCloudGeometry(center_points(points, mask), normals)
            if neighbor_index is None:
                if not torch.compiler.is_compiling() and points.shape[1] > MANY_POINTS:
                    logger.warning_once(
                        f"No `neighbor_index` for more than {MANY_POINTS} points: the search takes O(N^2) time. "
                        "Pass the neighbours that the processor finds in O(N log N)."
                    )
                neighbor_index = nearest_neighbors(geometry.points, mask, self.config.num_neighbors)
            neighbor_index = neighbor_index[..., : self.config.num_neighbors].long()
        hidden_states = self.embeddings(points, geometry, point_features, neighbor_index, category, mask)
        output_attentions = kwargs.get("output_attentions", self.config.output_attentions)
        hidden_states = self.encoder(hidden_states, mask, geometry, bool(output_attentions))
        return SFTModelOutput(last_hidden_state=hidden_states)

    def _check_inputs(
        self,
        points: Tensor,
        normals: Tensor | None,
        point_features: Tensor | None,
        neighbor_index: Tensor | None,
        category: Tensor | None,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """Validate the inputs of `forward` and return the mask as bool `(B, N)`."""
        config = self.config
        check_shape("points", points, (None, None, 3), "(batch, points, xyz)")
        if not points.is_floating_point():
            raise ValueError(f"`points` has dtype {points.dtype}: use floating-point coordinates.")
        batch, length, _ = points.shape
        mask = resolve_mask(attention_mask, points)
        check_coordinates("points", points, mask)
        if normals is None and config.use_normals is True:
            raise ValueError("`normals` is missing: this model was configured with `use_normals=True`.")
        if normals is not None:
            if config.use_normals is False:
                raise ValueError("`normals` was given to a model configured with `use_normals=False`: leave it out.")
            check_shape("normals", normals, (batch, length, 3), "one unit vector per point")
            check_finite("normals", normals, mask)
        if (point_features is not None) != (config.num_point_features > 0):
            remedy = "leave it out" if config.num_point_features == 0 else "pass it"
            raise ValueError(
                f"`point_features` does not fit `num_point_features={config.num_point_features}` of the "
                f"configuration: {remedy}, or configure the model for it."
            )
        if point_features is not None:
            check_shape("point_features", point_features, (batch, length, config.num_point_features), "per point")
            check_finite("point_features", point_features, mask)
        if neighbor_index is not None:
            check_shape("neighbor_index", neighbor_index, (batch, length, None), "neighbours of each point")
            if neighbor_index.shape[-1] < config.num_neighbors:
                raise ValueError(
                    f"`neighbor_index` lists {neighbor_index.shape[-1]} neighbours: the configuration asks for "
                    f"`num_neighbors={config.num_neighbors}`. Set the processor's `num_neighbors` to that."
                )
            remedy = "Indices count the points of their own row."
            check_neighbors(check_range("neighbor_index", neighbor_index, 0, length, remedy), mask)
        if (category is not None) != (config.num_categories > 0):
            raise ValueError(
                f"`category` does not fit `num_categories={config.num_categories}` of the configuration: pass it "
                "exactly when the model has categories."
            )
        if category is not None:
            check_shape("category", category, (batch,), "one shape category per cloud")
            check_range("category", category, 0, config.num_categories, "See `num_categories`.")
        return mask


class SFTPointCloudLabelModel(SFTPointCloudPreTrainedModel):
    """Base of the heads that label whole clouds, or their points."""

    head_class: ClassVar[Any]

    def __init__(self, config: SFTPointCloudConfig):
        super().__init__(config)
        # Transformers picks a loss by class name and would take the causal one; ours honours num_items_in_batch.
        self.loss_type = "ForTokenClassification" if self.head_class.labels_tokens else "ForSequenceClassification"
        self.sft = SFTPointCloudModel(config)
        self.classifier = self.head_class(config)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        points: Tensor,
        normals: Tensor | None = None,
        point_features: Tensor | None = None,
        neighbor_index: Tensor | None = None,
        category: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Label clouds or points.

        Args:
            labels: see the class.

        The other arguments are those of [`SFTPointCloudModel`]. The logits are `(B, num_labels)`, or
        `(B, N, num_labels)` of points.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        outputs = self.sft(points, normals, point_features, neighbor_index, category, attention_mask, **kwargs)
        mask = resolve_mask(attention_mask, points)
        return answer(self.classifier, outputs, mask, labels, self.config, num_items_in_batch)


class SFTForPointCloudClassification(SFTPointCloudLabelModel):
    """Point-cloud classification, multi-label classification or regression, by `config.problem_type`.

    Labels are `(B,)` long classes, -100 for missing; `(B, num_labels)` float for several labels or targets.

    Args:
        config: with `num_labels` or `id2label`, and `pooling`.
    """

    auto_class_name = "AutoModelForPointCloudClassification"
    head_class = SFTClassificationHead


class SFTForPointCloudSegmentation(SFTPointCloudLabelModel):
    """A label for every point: parts of shapes, or classes of a scene.

    Labels are `(B, N)` long, -100 for points without label; `(B, N, num_labels)` float for several labels or targets
    per point. Those of padding are ignored.

    Args:
        config: with `num_labels` or `id2label`, `pooling` for the context that each point sees, and `num_categories`
            if the shape's category is given to the model.
    """

    auto_class_name = "AutoModelForPointCloudSegmentation"
    head_class = SFTSegmentationHead


__all__ = [
    "SFTForPointCloudClassification",
    "SFTForPointCloudSegmentation",
    "SFTPointCloudModel",
    "SFTPointCloudPreTrainedModel",
]
