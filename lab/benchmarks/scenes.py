"""The suite `scenes`: one pass of the SFT backbone over one very large cloud, and the neighbour search before it."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from modeling_sft.point_cloud.modeling_sft_point_cloud import SFTPointCloudModel

from .cases import BenchmarkCase, BenchmarkSuite, ModelSize, Shapes, Workload
from .peers_point_clouds import NUM_NEIGHBORS, kd_tree_neighbors, point_cloud_inputs
from .peers_tokens import token_shapes
from .sft_modules import sft_config


class SFTScene(nn.Module):
    """The backbone on given neighbours, which gives a state for every point, as segmentation needs it."""

    def __init__(self, workload: Workload, backend: str) -> None:
        super().__init__()
        self.model = SFTPointCloudModel(sft_config(workload.size, num_neighbors=NUM_NEIGHBORS, use_normals=True))
        self.model.set_attn_implementation(backend)

    def forward(self, points: Tensor, normals: Tensor, neighbor_index: Tensor) -> Tensor:
        """States `(B, N, D)`."""
        return self.model(points, normals=normals, neighbor_index=neighbor_index).last_hidden_state


class NeighborSearch(nn.Module):
    """The k-d tree alone, built and queried as in `SFTPointCloudProcessor`; it has nothing to train."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()

    def forward(self, points: Tensor, normals: Tensor, neighbor_index: Tensor) -> Tensor:
        """Neighbours `(B, N, k)`; given ones are ignored."""
        return kd_tree_neighbors(points)


def neighbor_shapes(workload: Workload) -> Shapes:
    """K neighbours of every point."""
    return ((workload.batch_size, workload.length, NUM_NEIGHBORS),)


SCENES = BenchmarkSuite(
    name="scenes",
    description="the SFT backbone on one cloud of up to a million points with normals, and its neighbour search",
    unit="points",
    size=ModelSize(hidden_size=64, num_hidden_layers=2, intermediate_size=128),
    lengths=(65_536, 131_072, 262_144, 524_288, 1_000_000),
    batch_size=lambda length: 1,
    cases={
        "sft": BenchmarkCase(
            "SFT (neighbours given)", partial(SFTScene, backend="sft_fused"), token_shapes, is_sft=True
        ),
        "kd_tree": BenchmarkCase("k-d tree search of 16 neighbours", NeighborSearch, neighbor_shapes),
    },
    default_models=("sft", "kd_tree"),
    reference="sft",
    inputs=point_cloud_inputs,
    note="The search is done once per cloud, by the processor; it is for inference only.",
)
