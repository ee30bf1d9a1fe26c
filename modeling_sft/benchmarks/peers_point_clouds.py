"""The suite `point_clouds`: classifiers of clouds with normals.

The peers look for neighbours by one function, `knn_edges`: PyTorch Geometric's own needs a compiled extension.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..modeling_sft_point_cloud import SFTForPointCloudClassification
from ..optional import import_optional
from ..processing_point_cloud_sft import nearest_neighbors
from .cases import BenchmarkCase, BenchmarkSuite, Inputs, ModelSize, Shapes, Workload
from .inputs import random_surfaces
from .sft_modules import sft_config

NUM_CLASSES = 40
NUM_NEIGHBORS = 16
DGCNN_NEIGHBORS = 20
POINT_TRANSFORMER_NEIGHBORS = 16
DGCNN_PUBLISHED_WIDTHS = (64, 64, 128, 256)
# Elements of one block of distances, 16 MiB in float32.
KNN_BLOCK_ELEMENTS = 2**22


@torch.no_grad()
def knn_edges(x: Tensor, k: int) -> Tensor:
    """Edges from the k nearest points of each point, itself included, to it; distances in blocks of queries.

    Args:
        x: `(B, N, C)`.
        k: number of neighbours.

    Returns:
        `(2, B * N * k)` long, sources and targets, into the points of the whole batch.
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


def classification_head(width: int) -> nn.Sequential:
    """The head of PointNet and DGCNN without dropout: width, 512, 256, classes."""
    return nn.Sequential(shared_mlp([width, 512, 256]), nn.Linear(256, NUM_CLASSES))


class PeerClassifier(nn.Module):
    """A classifier of points and normals; takes and ignores the neighbours that SFT is given."""

    def forward(self, points: Tensor, normals: Tensor, neighbor_index: Tensor) -> Tensor:
        """Logits `(B, classes)` of `(B, N, 3)` points and normals."""
        dtype = next(self.parameters()).dtype
        return self.classify(points.to(dtype), torch.cat([points, normals], dim=-1).to(dtype))

    def classify(self, points: Tensor, features: Tensor) -> Tensor:
        """Logits `(B, classes)` of points `(B, N, 3)` and features `(B, N, 6)`."""
        raise NotImplementedError


class PointNet(PeerClassifier):
    """PointNet without its transforms (arXiv 1612.00593): shared perceptron, maximum over points, head."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.shared = shared_mlp([6, 64, 64, 64, 128, 1024])
        self.head = classification_head(1024)

    def classify(self, points: Tensor, features: Tensor) -> Tensor:
        states = self.shared(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return self.head(states.amax(1))


class DGCNN(PeerClassifier):
    """DGCNN (arXiv 1801.07829): edge convolutions on neighbours in feature space, found anew in each layer."""

    def __init__(self, workload: Workload, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        widths = widths or [workload.size.hidden_size] * workload.size.num_hidden_layers
        edge_conv = import_optional("torch_geometric.nn", "benchmark").EdgeConv
        self.convolutions = nn.ModuleList(
            [edge_conv(shared_mlp([2 * a, b], nn.LeakyReLU), aggr="max") for a, b in pairwise([6, *widths])]
        )
        self.shared = shared_mlp([sum(widths), 1024], nn.LeakyReLU)
        self.head = classification_head(2048)

    def classify(self, points: Tensor, features: Tensor) -> Tensor:
        shape = points.shape[:2]
        states, space, outputs = features.flatten(0, 1), points, []
        for convolution in self.convolutions:
            states = convolution(states, knn_edges(space, DGCNN_NEIGHBORS))
            space = states.unflatten(0, shape)
            outputs.append(states)
        pooled = self.shared(torch.cat(outputs, dim=-1)).unflatten(0, shape)
        return self.head(torch.cat([pooled.amax(1), pooled.mean(1)], dim=-1))


class PointTransformer(PeerClassifier):
    """Layers of the Point Transformer (arXiv 2012.09164) with PyTorch Geometric's defaults, without pooling stages."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        width, layers = workload.size.hidden_size, workload.size.num_hidden_layers
        convolution = import_optional("torch_geometric.nn", "benchmark").PointTransformerConv
        self.embedding = shared_mlp([6, width])
        self.convolutions = nn.ModuleList([convolution(width, width) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(layers)])
        self.head = classification_head(width)

    def classify(self, points: Tensor, features: Tensor) -> Tensor:
        edges = knn_edges(points, POINT_TRANSFORMER_NEIGHBORS)
        positions, states = points.flatten(0, 1), self.embedding(features.flatten(0, 1))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            states = states + nn.functional.relu(norm(convolution(states, positions, edges)))
        return self.head(states.unflatten(0, points.shape[:2]).amax(1))


class SFTClassifier(nn.Module):
    """SFT on neighbours that are given, or looked for in each call as `SFTPointCloudProcessor` does."""

    def __init__(self, workload: Workload, backend: str, searches_neighbors: bool) -> None:
        super().__init__()
        fields = {"use_normals": True, "rotation_invariant": True, "num_labels": NUM_CLASSES}
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
        "sft_eager": _sft("SFT (neighbours given, eager)", "eager", searches_neighbors=False),
        "pointnet": BenchmarkCase("PointNet", PointNet, logit_shapes),
        "dgcnn": BenchmarkCase("DGCNN (equal widths)", DGCNN, logit_shapes),
        "dgcnn_published": BenchmarkCase(
            "DGCNN (64, 64, 128, 256)", partial(DGCNN, widths=DGCNN_PUBLISHED_WIDTHS), logit_shapes
        ),
        "point_transformer": BenchmarkCase("Point Transformer layers", PointTransformer, logit_shapes),
    },
    default_models=("sft", "sft_search", "pointnet", "dgcnn", "dgcnn_published", "point_transformer"),
    reference="sft",
    inputs=point_cloud_inputs,
    warmup_length=256,
    note="All peers look for their neighbours within the measured time; PointNet needs none.",
)
