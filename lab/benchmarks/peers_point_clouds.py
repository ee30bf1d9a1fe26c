"""The suite `point_clouds`: classifiers of clouds with normals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from modeling_sft.hub.optional import import_optional
from modeling_sft.point_cloud.modeling_sft_point_cloud import SFTForPointCloudClassification
from modeling_sft.point_cloud.processing import nearest_neighbors

from ..baselines.point_clouds import (
    DGCNN,
    DGCNN_PUBLISHED_WIDTHS,
    PointNet,
    classification_head,
    knn_edges,
    shared_mlp,
)
from .cases import BenchmarkCase, BenchmarkSuite, Inputs, ModelSize, Shapes, Workload
from .inputs import random_surfaces
from .sft_modules import sft_config

NUM_CLASSES = 40
NUM_FEATURES = 6
NUM_NEIGHBORS = 16
POINT_TRANSFORMER_NEIGHBORS = 16


class PeerClassifier(nn.Module):
    """A classifier of points and normals; it takes the neighbours that SFT is given, but ignores them."""

    def __init__(self, classify: nn.Module) -> None:
        super().__init__()
        self.classify = classify

    def forward(self, points: Tensor, normals: Tensor, neighbor_index: Tensor) -> Tensor:
        """Logits `(B, classes)` of `(B, N, 3)` points and normals."""
        dtype = next(self.parameters()).dtype
        return self.classify(points.to(dtype), torch.cat([points, normals], dim=-1).to(dtype))


def pointnet(workload: Workload) -> PeerClassifier:
    """PointNet at its published widths."""
    return PeerClassifier(PointNet(NUM_FEATURES, NUM_CLASSES))


def dgcnn(workload: Workload, widths: Sequence[int] | None = None) -> PeerClassifier:
    """DGCNN with the width and depth of the workload's models, unless widths are given."""
    widths = widths or [workload.size.hidden_size] * workload.size.num_hidden_layers
    return PeerClassifier(DGCNN(NUM_FEATURES, NUM_CLASSES, widths))


class PointTransformer(nn.Module):
    """Layers of the Point Transformer (arXiv 2012.09164) with PyTorch Geometric's defaults, without pooling stages."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        width, layers = workload.size.hidden_size, workload.size.num_hidden_layers
        convolution = import_optional("torch_geometric.nn", "benchmark").PointTransformerConv
        self.embedding = shared_mlp([NUM_FEATURES, width])
        self.convolutions = nn.ModuleList([convolution(width, width) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(layers)])
        self.head = classification_head(width, NUM_CLASSES)

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """Logits `(B, classes)` of points `(B, N, 3)` and features `(B, N, 6)`."""
        edges = knn_edges(points, POINT_TRANSFORMER_NEIGHBORS)
        positions, states = points.flatten(0, 1), self.embedding(features.flatten(0, 1))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            states = states + nn.functional.relu(norm(convolution(states, positions, edges)))
        return self.head(states.unflatten(0, points.shape[:2]).amax(1))


def point_transformer(workload: Workload) -> PeerClassifier:
    """Point Transformer layers."""
    return PeerClassifier(PointTransformer(workload))


class SFTClassifier(nn.Module):
    """SFT on given neighbours, or on neighbours found in each call as `SFTPointCloudProcessor` finds them."""

    def __init__(self, workload: Workload, backend: str, searches_neighbors: bool) -> None:
        super().__init__()
        fields = {
            "use_normals": True,
            "rotation_invariant": True,
            "moment_invariants": False,
            "num_labels": NUM_CLASSES,
        }
        config = sft_config(workload.size, num_neighbors=NUM_NEIGHBORS, **fields)
        self.model = SFTForPointCloudClassification(config)
        self.model.set_attn_implementation(backend)
        self.searches_neighbors = searches_neighbors

    def forward(self, points: Tensor, normals: Tensor, neighbor_index: Tensor) -> Tensor:
        """Logits `(B, classes)`."""
        if self.searches_neighbors:
            neighbor_index = kd_tree_neighbors(points)
        return self.model(points, normals=normals, neighbor_index=neighbor_index).logits


def kd_tree_neighbors(points: Tensor) -> Tensor:
    """Neighbours as `SFTPointCloudProcessor` finds them, `(B, N, k)` long on the device of the points."""
    clouds = points.double().cpu().numpy()
    return torch.stack([torch.from_numpy(nearest_neighbors(cloud, NUM_NEIGHBORS)) for cloud in clouds]).to(
        points.device
    )


def point_cloud_inputs(workload: Workload) -> Inputs:
    """Points and normals `(B, N, 3)` in float32, and neighbours `(B, N, k)`."""
    surfaces = random_surfaces(workload)
    return {**surfaces, "neighbor_index": kd_tree_neighbors(surfaces["points"])}


def logit_shapes(workload: Workload) -> Shapes:
    """One row of logits per cloud."""
    return ((workload.batch_size, NUM_CLASSES),)


def _sft(label: str, backend: str, searches_neighbors: bool) -> BenchmarkCase:
    build = partial(SFTClassifier, backend=backend, searches_neighbors=searches_neighbors)
    return BenchmarkCase(label, build, logit_shapes, is_sft=True)


POINT_CLOUDS = BenchmarkSuite(
    name="point_clouds",
    description="classifiers of clouds with normals: SFT, PointNet, DGCNN, Point Transformer",
    unit="points",
    size=ModelSize(hidden_size=128, num_hidden_layers=4, intermediate_size=256),
    lengths=(1024, 4096),
    batch_size=lambda length: max(2, 8192 // length),
    cases={
        "sft": _sft("SFT (neighbours given)", "sft_fused", searches_neighbors=False),
        "sft_search": _sft("SFT (with neighbour search)", "sft_fused", searches_neighbors=True),
        "sft_compiled": _sft("SFT (neighbours given, compiled)", "sft_compiled", searches_neighbors=False),
        "sft_triton": _sft("SFT (neighbours given, Triton)", "sft_triton", searches_neighbors=False),
        "sft_eager": _sft("SFT (neighbours given, eager)", "eager", searches_neighbors=False),
        "pointnet": BenchmarkCase("PointNet", pointnet, logit_shapes),
        "dgcnn": BenchmarkCase("DGCNN (equal widths)", dgcnn, logit_shapes),
        "dgcnn_published": BenchmarkCase(
            "DGCNN (64, 64, 128, 256)", partial(dgcnn, widths=DGCNN_PUBLISHED_WIDTHS), logit_shapes
        ),
        "point_transformer": BenchmarkCase("Point Transformer layers", point_transformer, logit_shapes),
    },
    default_models=("sft", "sft_search", "pointnet", "dgcnn", "dgcnn_published", "point_transformer"),
    reference="sft",
    inputs=point_cloud_inputs,
    warmup_length=256,
    note="All peers look for their neighbours within the measured time; PointNet needs none.",
)
