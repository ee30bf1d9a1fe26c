"""GINE and GPS from PyTorch Geometric behind the inputs and the readout of SFT's graph classifier.

The layers follow the paper on GPS (arXiv 2205.12454), with a batch norm after every residual sum and ReLU inside.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from modeling_sft.configuration_sft import SFTGraphConfig
from modeling_sft.graph.features import SFTFeatureEmbedding
from modeling_sft.graph.modeling_sft_graph import SFTForGraphClassification
from modeling_sft.graph.relation import GraphEdges
from modeling_sft.hub.optional import import_optional
from modeling_sft.nn.initialization import start_with_unit_variance


def gine_convolution(width: int) -> nn.Module:
    """PyTorch Geometric's `GINEConv` with a perceptron of one hidden layer."""
    perceptron = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    return import_optional("torch_geometric.nn", "graphs").GINEConv(perceptron)


class GINEStack(nn.Module):
    """Layers BN(x + Dropout(GINE(x))) (arXiv 1905.12265): GPS without attention and feed-forward."""

    def __init__(self, config: SFTGraphConfig) -> None:
        super().__init__()
        width, depth = config.hidden_size, config.num_hidden_layers
        self.convolutions = nn.ModuleList([gine_convolution(width) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(depth)])
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states: Tensor, edge_index: Tensor, edge_states: Tensor, graph: Tensor) -> Tensor:
        """Map the states `(n, D)` of the nodes of all graphs to `(n, D)`.

        Args:
            states: states of the nodes, one graph after the other.
            edge_index: `(2, m)` long, indices of the n nodes.
            edge_states: `(m, D)`.
            graph: `(n,)` long, the graph of each node, ascending.
        """
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            states = norm(states + self.dropout(convolution(states, edge_index, edge_states)))
        return states


class GPSStack(nn.Module):
    """PyTorch Geometric's `GPSConv` around GINE: softmax attention among all nodes of a graph beside the messages."""

    def __init__(self, config: SFTGraphConfig) -> None:
        super().__init__()
        layer = import_optional("torch_geometric.nn", "graphs").GPSConv
        self.layers = nn.ModuleList(
            [
                layer(
                    config.hidden_size,
                    gine_convolution(config.hidden_size),
                    heads=config.num_attention_heads,
                    dropout=float(config.hidden_dropout_prob),
                    attn_type="multihead",
                    attn_kwargs={"dropout": float(config.attention_probs_dropout_prob)},
                )
                for _ in range(config.num_hidden_layers)
            ]
        )

    def forward(self, states: Tensor, edge_index: Tensor, edge_states: Tensor, graph: Tensor) -> Tensor:
        """Map the states `(n, D)` of the nodes of all graphs to `(n, D)`; arguments as of [`GINEStack`]."""
        for layer in self.layers:
            states = layer(states, edge_index, graph, edge_attr=edge_states)
        return states


class UnpaddedEncoder(nn.Module):
    """Gives a stack the real nodes and edges of a padded batch, in the flat layout of PyTorch Geometric.

    The features of edges are embedded once for all layers, as in GPS.
    """

    def __init__(self, config: SFTGraphConfig, stack: nn.Module) -> None:
        super().__init__()
        self.stack = stack
        self.edges = None
        if config.has_edge_features:
            self.edges = SFTFeatureEmbedding(config.edge_vocab_sizes, config.num_edge_features, config.hidden_size)
            for layer in self.edges.children():
                start_with_unit_variance(layer)

    def forward(
        self, hidden_states: Tensor, mask: Tensor, edges: GraphEdges, output_attentions: bool = False
    ) -> Tensor:
        """Encode the nodes `(B, N, D)` under the mask `(B, N)` bool; padding gets zeros. Attentions are not kept."""
        # Number the real nodes by their place in the flat layout.
        place = mask.flatten().cumsum(0).view_as(mask) - 1
        row, edge = edges.edge_mask.nonzero(as_tuple=True)
        edge_index = place[row, edges.edge_index[row, :, edge].T]
        if self.edges is None or edges.edge_features is None:
            edge_states = hidden_states.new_zeros(1, hidden_states.shape[-1]).expand(len(row), -1)
        else:
            edge_states = self.edges(edges.edge_features)[row, edge]
        states = self.stack(hidden_states[mask], edge_index, edge_states, mask.nonzero()[:, 0])
        padded = states.new_zeros(hidden_states.shape)
        padded[mask] = states
        return padded


@strict
class GraphBaselineConfig(SFTGraphConfig):
    """Configuration of the baselines: `SFTGraphConfig`, whose fields about sampling have no effect here."""

    model_type = "graph_baseline"

    def __post_init__(self, **kwargs: Any) -> None:
        # Name no remote code: a baseline loads with this package only.
        super().__post_init__(**(kwargs | {"auto_map": {}}))


GraphBaselineConfig._auto_class = None


class GraphBaseline(SFTForGraphClassification):
    """A baseline with inputs, embeddings, readout, loss and outputs of `SFTForGraphClassification`.

    It uses the fields of the configuration that describe inputs, targets and readout, and `hidden_size`,
    `num_hidden_layers`, `num_attention_heads` and the dropouts.

    Raises:
        ImportError: torch-geometric is missing.
    """

    config: GraphBaselineConfig
    supports_gradient_checkpointing = False
    auto_class_name = None
    stack_class: type[nn.Module]

    def __init__(self, config: GraphBaselineConfig) -> None:
        super().__init__(config)
        # Replace the encoder after SFT has drawn its weights: these layers keep their library's initialisation.
        encoder: Any = UnpaddedEncoder(config, self.stack_class(config))
        self.sft.encoder = encoder


class GINEForGraphClassification(GraphBaseline):
    """GINE (arXiv 1905.12265) with residual connections and batch norm."""

    stack_class = GINEStack


class GPSForGraphClassification(GraphBaseline):
    """GPS (arXiv 2205.12454): GINE beside softmax attention; its feed-forward is twice as wide as the states."""

    stack_class = GPSStack
