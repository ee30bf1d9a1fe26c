"""SFT for graphs: backbone, and heads for whole graphs, nodes and links (arXiv 2408.05822)."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..configuration_sft import SFTGraphConfig
from ..encoder.context_hashes import SFTContextEmbedding
from ..encoder.encoder import SFTEncoder
from ..encoder.heads import SFTClassificationHead, SFTTokenHead, answer
from ..encoder.losses import classification_loss, link_loss, share_of_step
from ..encoder.outputs import SFTClassifierOutput, SFTModelOutput
from ..encoder.pretrained import FORWARD_OPTIONS, SFTPreTrainedModel
from ..hub.arguments import refuses_unknown_arguments
from ..nn.checks import can_check_values, check_finite, check_range, check_shape, resolve_mask
from ..nn.initialization import unit_variance_linear
from ..nn.norms import build_norm
from .context_hashes import graph_hashes
from .features import SFTFeatureEmbedding, check_features
from .local_mixing import SFTMessagePassing
from .relation import GraphEdges, SFTGraphRelation


class SFTGraphPreTrainedModel(SFTPreTrainedModel):
    """Base of the graph models."""

    config: SFTGraphConfig
    relation_class = SFTGraphRelation
    main_input_name = "node_features"
    input_modalities: Any = ("graph",)
    _input_embed_layer = "embeddings"

    def _refuse_graph_features(self) -> None:
        if self.config.num_graph_features:
            name = type(self).__name__
            raise ValueError(f"`num_graph_features` is for heads of whole graphs, and {name} is none: set it to 0.")


class SFTGraphEmbeddings(nn.Module):
    """Node features and encodings, normalised."""

    def __init__(self, config: SFTGraphConfig):
        super().__init__()
        width = config.hidden_size
        sizes, numbers, encodings = config.node_vocab_sizes, config.num_node_features, config.num_node_encodings
        if not (sizes or numbers or encodings):
            raise ValueError(
                "Set `node_vocab_sizes`, `num_node_features` or `num_node_encodings`: nodes need features."
            )
        self.nodes = SFTFeatureEmbedding(sizes, numbers, width) if sizes or numbers else None
        self.encoding_proj = unit_variance_linear(encodings, width) if encodings else None
        self.norm = build_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, node_features: Tensor, node_encodings: Tensor | None, context: Tensor | None, mask: Tensor
    ) -> Tensor:
        """Embed checked features and encodings of the nodes of a batch, and their neighbourhoods: `(B, N, D)`.

        Args:
            node_features, node_encodings, mask: as in [`SFTGraphModel`].
            context: `(B, N, D)`, states of the neighbourhoods, or `None`.
        """
        states: Any = 0.0 if context is None else context
        if self.nodes is not None:
            states = states + self.nodes(node_features)
        if self.encoding_proj is not None and node_encodings is not None:
            node_encodings = node_encodings.masked_fill(~mask[..., None], 0.0)
            states = states + self.encoding_proj(node_encodings.to(self.encoding_proj.weight.dtype))
        return self.dropout(self.norm(states, mask))


class SFTGraphModel(SFTGraphPreTrainedModel):
    """The graph backbone: one state per node.

    Args:
        config: sizes and choices of the model.
    """

    auto_class_name = "AutoModel"

    def __init__(self, config: SFTGraphConfig):
        super().__init__(config)
        self.embeddings = SFTGraphEmbeddings(config)
        self.context_embedding = None
        if config.num_context_kinds and config.context_hash_dim:
            self.context_embedding = SFTContextEmbedding(config)
        self.encoder = SFTEncoder(config, relation=self.relation_class, mixing=SFTMessagePassing)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        node_features: Tensor,
        edge_index: Tensor | None = None,
        edge_features: Tensor | None = None,
        edge_mask: Tensor | None = None,
        node_encodings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTModelOutput:
        """Encode graphs.

        Args:
            node_features: `(B, N, C)`, categories (long, or whole numbers in a float tensor) in the first columns,
                continuous features behind them.
            edge_index: `(B, 2, E)` long, source and target of each edge, counted within the own graph. An edge counts
                in its direction only; the same edge twice counts twice; a self-loop is an edge like any other.
            edge_features: `(B, E, C')`, like node features; when the configuration has them.
            edge_mask: `(B, E)`, 1 for real edges and 0 for padding, which may hold anything; all real by default.
            node_encodings: `(B, N, num_node_encodings)` float.
            attention_mask: `(B, N)`, 1 for real nodes and 0 for padding.
            kwargs: `output_hidden_states`, `output_attentions`, `output_sampled_tokens`, `output_importance_scores`,
                `return_dict`.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        check_shape("node_features", node_features, (None, None, None), "(batch, nodes, features)")
        mask = resolve_mask(attention_mask, node_features)
        sizes, numbers = self.config.node_vocab_sizes, self.config.num_node_features
        node_features = check_features("node_features", node_features, mask, sizes, numbers)
        self._check_encodings(node_encodings, mask)
        edges = self._edges(edge_index, edge_features, edge_mask, mask)
        hashes = graph_hashes(node_features, mask, edges, self.config) if self.config.num_context_kinds else None
        context = None if self.context_embedding is None else self.context_embedding(hashes)
        hidden_states = self.embeddings(node_features, node_encodings, context, mask)
        output_attentions = bool(kwargs.get("output_attentions", self.config.output_attentions))
        hidden_states = self.encoder(hidden_states, mask, edges, output_attentions)
        return SFTModelOutput(last_hidden_state=hidden_states, context_hashes=hashes)

    def _check_encodings(self, node_encodings: Tensor | None, mask: Tensor) -> None:
        width = self.config.num_node_encodings
        if (node_encodings is not None) != (width > 0):
            raise ValueError(
                f"`node_encodings` does not fit `num_node_encodings={width}` of the configuration: pass it exactly "
                "when the model has encodings."
            )
        if node_encodings is not None:
            check_shape("node_encodings", node_encodings, (*mask.shape, width), "per node")
            check_finite("node_encodings", node_encodings, mask)

    def _edges(
        self, edge_index: Tensor | None, edge_features: Tensor | None, edge_mask: Tensor | None, mask: Tensor
    ) -> GraphEdges:
        """Validate the edges and their features."""
        batch = mask.shape[0]
        if edge_index is None:
            if edge_features is not None or edge_mask is not None:
                raise ValueError("`edge_index` is missing: give it with `edge_features` and `edge_mask`.")
            edge_index = torch.zeros(batch, 2, 0, dtype=torch.long, device=mask.device)
        check_shape("edge_index", edge_index, (batch, 2, None), "source and target of each edge")
        count = edge_index.shape[2]
        if edge_mask is None:
            edge_mask = torch.ones(batch, count, dtype=torch.bool, device=mask.device)
        else:
            check_shape("edge_mask", edge_mask, (batch, count), "one entry per edge, 1 for real ones")
            if can_check_values(edge_mask) and not bool(((edge_mask == 0) | (edge_mask == 1)).all()):
                raise ValueError("`edge_mask` must hold 1 for real edges and 0 for padding, nothing else.")
            edge_mask = edge_mask != 0
        edge_index = edge_index.masked_fill(~edge_mask[:, None], 0)
        remedy = "Indices count the nodes of their own graph."
        edge_index = check_range("edge_index", edge_index, 0, mask.shape[1], remedy)
        if can_check_values(edge_index) and count:
            touched = mask.gather(1, edge_index.flatten(1)).view_as(edge_index).all(1) | ~edge_mask
            if not bool(touched.all()):
                row = int((~touched).any(1).nonzero()[0])
                raise ValueError(f"`edge_index` names a padded node (first in row {row}): mask the edge, or drop it.")
        if (edge_features is not None) != self.config.has_edge_features and count:
            raise ValueError(
                "`edge_features` does not fit the configuration: pass it exactly when the model has "
                "`edge_vocab_sizes` or `num_edge_features`."
            )
        if not self.config.has_edge_features:
            return GraphEdges(edge_index, edge_mask, None, mask.shape[1])
        sizes, numbers = self.config.edge_vocab_sizes, self.config.num_edge_features
        if edge_features is None:
            edge_features = edge_index.new_zeros(batch, count, len(sizes or ()) + numbers)
        edge_features = check_features("edge_features", edge_features, edge_mask, sizes, numbers)
        return GraphEdges(edge_index, edge_mask, edge_features, mask.shape[1])


class SFTGraphLabelModel(SFTGraphPreTrainedModel):
    """Base of the heads that label whole graphs, or their nodes."""

    head_class: ClassVar[Any]

    def __init__(self, config: SFTGraphConfig):
        super().__init__(config)
        if self.head_class.labels_tokens:
            self._refuse_graph_features()
        # Transformers picks a loss by class name and would take the causal one; ours honours num_items_in_batch.
        self.loss_type = "ForTokenClassification" if self.head_class.labels_tokens else "ForSequenceClassification"
        self.sft = SFTGraphModel(config)
        self.classifier = self._build_head(config)
        self.post_init()

    def _build_head(self, config: SFTGraphConfig) -> nn.Module:
        return self.head_class(config)

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        node_features: Tensor,
        edge_index: Tensor | None = None,
        edge_features: Tensor | None = None,
        edge_mask: Tensor | None = None,
        node_encodings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        graph_features: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Label graphs or nodes.

        Args:
            labels: see the class.
            graph_features: `(B, num_graph_features)` float, numbers of whole graphs as `graph_feature_mean` and
                `graph_feature_scale` of the configuration expect them; for heads of whole graphs.

        The other arguments are those of [`SFTGraphModel`]. The logits are `(B, num_labels)`, or `(B, N, num_labels)`
        of nodes.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        features = self._normalised(graph_features, node_features.shape[0])
        outputs = self.sft(
            node_features, edge_index, edge_features, edge_mask, node_encodings, attention_mask, **kwargs
        )
        mask = resolve_mask(attention_mask, outputs.last_hidden_state)
        return self._answer(outputs, mask, labels, num_items_in_batch, features)

    def _normalised(self, graph_features: Tensor | None, batch: int) -> Tensor | None:
        """Checked features `(B, num_graph_features)`, of mean 0 and deviation 1 over the training data."""
        width = self.config.num_graph_features
        if (graph_features is not None) != (width > 0):
            raise ValueError(
                f"`graph_features` does not fit `num_graph_features={width}` of the configuration: pass it exactly "
                "when the model has features of whole graphs, such as `descriptors` of its processor."
            )
        if graph_features is None:
            return None
        check_shape("graph_features", graph_features, (batch, width), "per graph")
        check_finite("graph_features", graph_features[:, None], resolve_mask(None, graph_features[:, None]))
        # Units may need more digits than half precision has.
        features = graph_features.to(torch.promote_types(graph_features.dtype, torch.float32))
        mean, scale = self.config.graph_feature_mean, self.config.graph_feature_scale
        return features if mean is None else (features - features.new_tensor(mean)) / features.new_tensor(scale)

    def _answer(
        self,
        outputs: SFTModelOutput,
        mask: Tensor,
        labels: Tensor | None,
        num_items_in_batch: Any,
        features: Tensor | None,
    ) -> SFTClassifierOutput:
        return answer(self.classifier, outputs, mask, labels, self.config, num_items_in_batch, features)


class SFTForGraphClassification(SFTGraphLabelModel):
    """Classification, multi-label classification or regression of whole graphs, by `config.problem_type`.

    Labels are `(B,)` long classes, -100 for missing; `(B, num_labels)` float for several labels or targets, NaN for
    missing ones (or -100, of labels).

    Args:
        config: with `num_labels` or `id2label`, `pooling`, and for regression `target_mean` and `target_scale`.
    """

    auto_class_name: ClassVar[str | None] = "AutoModelForGraphClassification"
    head_class: ClassVar[Any] = SFTClassificationHead

    def _build_head(self, config: SFTGraphConfig) -> nn.Module:
        return self.head_class(config, num_features=config.num_graph_features)

    def _answer(
        self,
        outputs: SFTModelOutput,
        mask: Tensor,
        labels: Tensor | None,
        num_items_in_batch: Any,
        features: Tensor | None,
    ) -> SFTClassifierOutput:
        if self.config.target_mean is None or self.config.target_scale is None:
            return super()._answer(outputs, mask, labels, num_items_in_batch, features)
        logits = self.classifier(outputs.last_hidden_state, mask, outputs.context_hashes, features)
        # Units of targets need more digits than half precision has.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mean, scale = logits.new_tensor(self.config.target_mean), logits.new_tensor(self.config.target_scale)
        loss = None
        if labels is not None:
            targets = labels[:, None] if labels.dim() == 1 and logits.shape[1] == 1 else labels
            loss = classification_loss(logits, (targets.to(logits) - mean) / scale, self.config)
            loss = share_of_step(loss, labels, num_items_in_batch)
        return SFTClassifierOutput.of(outputs, logits * scale + mean, loss)


class SFTForNodeClassification(SFTGraphLabelModel):
    """A label for every node.

    Labels are `(B, N)` long, -100 for nodes without label; `(B, N, num_labels)` float for several labels or targets
    per node. Those of padding are ignored.

    Args:
        config: with `num_labels` or `id2label`.
    """

    auto_class_name = "AutoModelForNodeClassification"
    head_class = SFTTokenHead


class SFTForLinkPrediction(SFTGraphPreTrainedModel):
    """Scores pairs of nodes: is there a link from the first to the second?

    Args:
        config: `num_labels` is not used.
    """

    auto_class_name = "AutoModelForLinkPrediction"

    def __init__(self, config: SFTGraphConfig):
        super().__init__(config)
        self._refuse_graph_features()
        self.loss_type = "ForSequenceClassification"
        self.sft = SFTGraphModel(config)
        self.dense = unit_variance_linear(3 * config.hidden_size, config.hidden_size)
        self.activation = nn.GELU()
        self.out_proj = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        node_features: Tensor,
        edge_index: Tensor | None = None,
        edge_features: Tensor | None = None,
        edge_mask: Tensor | None = None,
        node_encodings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        node_pairs: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Score pairs.

        Args:
            node_pairs: `(B, P, 2)` long, nodes of the own graph.
            labels: `(B, P)`, 1 for links, 0 for others, -100 for pairs to ignore.

        The other arguments are those of [`SFTGraphModel`]. The logits are `(B, P)`.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        if node_pairs is None:
            raise ValueError("`node_pairs` is missing: name the pairs of nodes to score.")
        check_shape("node_pairs", node_pairs, (len(node_features), None, 2), "pairs of nodes of each graph")
        remedy = "Indices count the nodes of their own graph."
        node_pairs = check_range("node_pairs", node_pairs, 0, node_features.shape[1], remedy)
        mask = resolve_mask(attention_mask, node_features)
        if can_check_values(mask) and not bool(mask.gather(1, node_pairs.flatten(1)).all()):
            raise ValueError("`node_pairs` names a padded node: repeat a real pair, and label the repetition -100.")
        outputs = self.sft(
            node_features, edge_index, edge_features, edge_mask, node_encodings, attention_mask, **kwargs
        )
        states = outputs.last_hidden_state
        index = node_pairs.flatten(1)[..., None].expand(-1, -1, states.shape[-1])
        first, second = states.gather(1, index).unflatten(1, (-1, 2)).unbind(2)
        pair = torch.cat([first, second, first * second], dim=-1)
        logits = self.out_proj(self.activation(self.dense(pair))).squeeze(-1)
        loss = None
        if labels is not None:
            loss = share_of_step(link_loss(logits, labels), labels, num_items_in_batch)
        return SFTClassifierOutput.of(outputs, logits, loss)


__all__ = [
    "SFTForGraphClassification",
    "SFTForLinkPrediction",
    "SFTForNodeClassification",
    "SFTGraphModel",
    "SFTGraphPreTrainedModel",
]
