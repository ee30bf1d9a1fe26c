"""PointNet and DGCNN for clouds of equal size.

The function `knn_edges` finds neighbours, because PyTorch Geometric's own search needs a compiled extension.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import can_return_tuple

from modeling_sft.encoder.losses import classification_loss, share_of_step
from modeling_sft.encoder.outputs import SFTClassifierOutput
from modeling_sft.hub.optional import import_optional

DGCNN_NEIGHBORS = 20
DGCNN_PUBLISHED_WIDTHS = (64, 64, 128, 256)
# One block of distances has at most this many elements, which are 16 MiB in float32.
KNN_BLOCK_ELEMENTS = 2**22


@torch.no_grad()
def knn_edges(x: Tensor, k: int) -> Tensor:
    """Edges to each point from its k nearest points, itself included; blocks of queries limit the memory.

    Args:
        x: `(B, N, C)`.
        k: number of neighbours.

    Returns:
        `(2, B * N * k)` long, sources and targets, as indices of the points of the whole batch.
    """
    batch, length, _ = x.shape
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    rows = max(1, KNN_BLOCK_ELEMENTS // (batch * length))
    blocks = [
        torch.cdist(x[:, start : start + rows], x).topk(min(k, length), largest=False).indices
        for start in range(0, length, rows)
    ]
    first = torch.arange(0, batch * length, length, device=x.device)[:, None, None]
    sources = torch.cat(blocks, dim=1) + first
    targets = torch.arange(batch * length, device=x.device).repeat_interleave(sources.shape[-1])
    return torch.stack([sources.flatten(), targets])


def shared_mlp(widths: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear, batch norm and activation for each step of the widths."""
    steps = [(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), activation()) for a, b in pairwise(widths)]
    return nn.Sequential(*[layer for step in steps for layer in step])


def classification_head(width: int, num_classes: int, dropout: float = 0.0) -> nn.Sequential:
    """The head of PointNet and DGCNN: width, 512, 256, classes."""
    return nn.Sequential(shared_mlp([width, 512, 256]), nn.Dropout(dropout), nn.Linear(256, num_classes))


class PointNet(nn.Module):
    """PointNet without its transforms (arXiv 1612.00593): shared perceptron, maximum over points, head."""

    def __init__(self, num_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.shared = shared_mlp([num_features, 64, 64, 64, 128, 1024])
        self.head = classification_head(1024, num_classes, dropout)

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """Logits `(B, classes)` of points `(B, N, 3)` and features `(B, N, F)`."""
        states = self.shared(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return self.head(states.amax(1))


class DGCNN(nn.Module):
    """DGCNN (arXiv 1801.07829): edge convolutions on neighbours in feature space, found anew in each layer."""

    def __init__(self, num_features: int, num_classes: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        edge_conv = import_optional("torch_geometric.nn", "benchmark").EdgeConv
        self.convolutions = nn.ModuleList(
            [edge_conv(shared_mlp([2 * a, b], nn.LeakyReLU), aggr="max") for a, b in pairwise([num_features, *widths])]
        )
        self.shared = shared_mlp([sum(widths), 1024], nn.LeakyReLU)
        self.head = classification_head(2048, num_classes, dropout)

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """Logits `(B, classes)` of points `(B, N, 3)` and features `(B, N, F)`."""
        shape = points.shape[:2]
        states, space, outputs = features.flatten(0, 1), points, []
        for convolution in self.convolutions:
            states = convolution(states, knn_edges(space, DGCNN_NEIGHBORS))
            space = states.unflatten(0, shape)
            outputs.append(states)
        pooled = self.shared(torch.cat(outputs, dim=-1)).unflatten(0, shape)
        return self.head(torch.cat([pooled.amax(1), pooled.mean(1)], dim=-1))


@strict
class PointCloudBaselineConfig(PreTrainedConfig):
    """Configuration of [`PointNetForPointCloudClassification`] and [`DGCNNForPointCloudClassification`].

    Args:
        use_normals: whether normals are inputs beside the coordinates.
        widths: widths of DGCNN's edge convolutions.
        dropout: rate of dropout before the last layer.
    """

    model_type = "point_cloud_baseline"

    use_normals: bool = True
    widths: list[int] | None = None
    dropout: float | int = 0.5
    problem_type: Literal["single_label_classification"] | None = None


class PointCloudBaseline(PreTrainedModel):
    """A baseline with the interface of `SFTForPointCloudClassification`."""

    config: PointCloudBaselineConfig
    main_input_name = "points"

    def __init__(self, config: PointCloudBaselineConfig) -> None:
        super().__init__(config)
        self.model = self.build(config, 6 if config.use_normals else 3, int(config.num_labels or 0))
        self.post_init()

    def build(self, config: PointCloudBaselineConfig, num_features: int, num_classes: int) -> nn.Module:
        """The network, called with points and features."""
        raise NotImplementedError

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: the network keeps PyTorch's own initialisation."""

    @can_return_tuple
    def forward(
        self,
        points: Tensor,
        normals: Tensor | None = None,
        neighbor_index: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Classify clouds `(B, N, 3)`; arguments as of `SFTForPointCloudClassification`.

        Raises:
            ValueError: clouds of different sizes, or normals missing.
        """
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("Baselines take clouds of equal size: set the processor's `num_points` to the smallest.")
        if self.config.use_normals and normals is None:
            raise ValueError("`normals` is missing: this baseline was configured with `use_normals=True`.")
        features = torch.cat([points, normals], dim=-1) if self.config.use_normals and normals is not None else points
        logits = self.model(points, features)
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config)
            loss = share_of_step(loss, labels, kwargs.get("num_items_in_batch"))
        return SFTClassifierOutput(loss=loss, logits=logits)


class PointNetForPointCloudClassification(PointCloudBaseline):
    """PointNet (arXiv 1612.00593) without its transforms."""

    def build(self, config: PointCloudBaselineConfig, num_features: int, num_classes: int) -> nn.Module:
        return PointNet(num_features, num_classes, float(config.dropout))


class DGCNNForPointCloudClassification(PointCloudBaseline):
    """DGCNN (arXiv 1801.07829) with 20 neighbours."""

    def build(self, config: PointCloudBaselineConfig, num_features: int, num_classes: int) -> nn.Module:
        widths = DGCNN_PUBLISHED_WIDTHS if config.widths is None else config.widths
        return DGCNN(num_features, num_classes, widths, float(config.dropout))
