"""Local mixing of point clouds: an edge step over nearest neighbours (docs/design.md, section 5)."""

from torch import Tensor, nn

from ..configuration_sft import SFTPointCloudConfig
from ..nn.blocks import in_blocks
from ..nn.functional import gather_rows
from ..nn.initialization import unit_variance_linear
from .geometry import PAIR_ELEMENTS, neighbor_pair_features


class SFTEdgeMixing(nn.Module):
    """An edge step over nearest neighbours: h_i + W gelu(A h_i + max_j (B h_j + G g_ij)), j the neighbours of i.

    g_ij are invariants of the pair (and its offset, where the model need not be rotation-invariant). A point stands in
    for neighbours that it lacks. After EdgeConv (arXiv 1801.07829), with the activation behind the maximum.
    """

    def __init__(self, config: SFTPointCloudConfig):
        super().__init__()
        self.num_neighbors = config.local_mixing_size
        self.with_normals = config.use_normals is not False
        self.with_offsets = not config.rotation_invariant
        width = config.hidden_size
        num_pair_features = (4 if self.with_normals else 1) + (3 if self.with_offsets else 0)
        self.center_proj = unit_variance_linear(width, width)
        self.neighbor_proj = unit_variance_linear(width, width, bias=False)
        self.pair_proj = unit_variance_linear(num_pair_features, width, bias=False)
        self.out_proj = unit_variance_linear(width, width)
        self.activation = nn.GELU()

    def forward(self, hidden_states: Tensor, points: Tensor, normals: Tensor | None, neighbor_index: Tensor) -> Tensor:
        """Mix each point with its neighbours.

        Args:
            hidden_states: `(B, N, D)`.
            points: `(B, N, 3)`, centred.
            normals: `(B, N, 3)`, or `None`.
            neighbor_index: `(B, N, k)` long, nearest first; own index for "no neighbour".

        Returns:
            `(B, N, D)`.
        """
        neighbor_index = neighbor_index[..., : self.num_neighbors]
        neighbors = self.neighbor_proj(hidden_states)

        def largest_message(part: slice) -> Tensor:
            pairs = neighbor_pair_features(points, normals, neighbor_index, part, self.with_normals, self.with_offsets)
            messages = gather_rows(neighbors, neighbor_index[:, part]) + self.pair_proj(pairs.to(neighbors.dtype))
            # amax is faster forward, but its backward compares every element; that of max scatters to the winners.
            return messages.max(2).values if messages.requires_grad else messages.amax(2)

        rows = max(1, PAIR_ELEMENTS // (neighbors[:, 0].numel() * neighbor_index.shape[-1]))
        messages = in_blocks(largest_message, points.shape[1], rows)
        return hidden_states + self.out_proj(self.activation(self.center_proj(hidden_states) + messages))
