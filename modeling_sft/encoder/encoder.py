"""The encoder that all modalities share: a layer, and the stack of layers.

The encoder does not depend on a modality: a model gives it the relation and the local mixing of its kind of input.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..attention.attention import SFTAttention
from ..configuration_sft import SFTEncoderConfig
from ..nn.feed_forward import SFTFeedForward
from ..nn.norms import build_norm

# The class of a relation or of a local mixing; called with the configuration, it returns the module of one layer.
PartOfLayer = Callable[[Any], Any]


class SFTLayer(GradientCheckpointingLayer):
    """Attention to a sample and a feed-forward network, two residual branches that share one learned scale.

    Pre-norm: x + scale * Drop(branch(norm(x))); post-norm: norm(x + scale * Drop(branch(x))).
    Source: docs/design.md, section 4.

    Args:
        config: sizes and choices of the layer.
        relation: the class of the relation that scales and shifts the scores, used if `config.relation` is set.
        mixing: the class of the local mixing, used if `config.local_mixing` is set. If its attribute `parallel` is
            true, it is added to the attention's branch, and shares that branch's norm; otherwise it is a separate
            residual branch before the attention.
    """

    def __init__(
        self, config: SFTEncoderConfig, relation: PartOfLayer | None = None, mixing: PartOfLayer | None = None
    ):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.hidden_dropout_prob, self.drop_path_prob = config.hidden_dropout_prob, config.drop_path_prob
        self.local_mixing: Any = mixing(config) if mixing is not None and config.local_mixing else None
        mixes_before = self.local_mixing is not None and not self.local_mixing.parallel
        self.local_mixing_norm = build_norm(config) if mixes_before else None
        self.attention = SFTAttention(config, relation(config) if relation is not None and config.relation else None)
        self.attention_norm = build_norm(config)
        self.feed_forward = SFTFeedForward(config)
        self.feed_forward_norm = build_norm(config)
        self.residual_scale = nn.Parameter(torch.empty(1))

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor,
        relation_inputs: tuple | None,
        num_sampled_tokens: int,
        output_attentions: bool = False,
    ) -> Tensor:
        """Run the layer.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool, `True` for real tokens.
            relation_inputs: what the modality's relation is computed from, or `None`.
            num_sampled_tokens: K.
            output_attentions: whether the attention computes its weights, for output capturing.

        Returns:
            `(B, N, D)`.
        """
        if self.local_mixing is not None and self.local_mixing_norm is not None:
            states = self.local_mixing_norm(hidden_states, mask) if self.pre_norm else hidden_states
            hidden_states = self._residual(hidden_states, self.local_mixing(states, mask, relation_inputs))
            if not self.pre_norm:
                hidden_states = self.local_mixing_norm(hidden_states, mask)
        states = self.attention_norm(hidden_states, mask) if self.pre_norm else hidden_states
        # Reuse the name `states` throughout, so that tensors which a branch no longer needs leave memory.
        beside = None
        if self.local_mixing is not None and self.local_mixing_norm is None:
            beside = self.local_mixing(states, mask, relation_inputs)
        states = self.attention(states, mask, relation_inputs, num_sampled_tokens, output_attentions)[0]
        if beside is not None:
            states = states + beside
            del beside
        hidden_states = self._residual(hidden_states, states)
        if not self.pre_norm:
            hidden_states = self.attention_norm(hidden_states, mask)
        states = self.feed_forward_norm(hidden_states, mask) if self.pre_norm else hidden_states
        states = self.feed_forward(states)
        hidden_states = self._residual(hidden_states, states)
        return hidden_states if self.pre_norm else self.feed_forward_norm(hidden_states, mask)

    def _residual(self, hidden_states: Tensor, branch: Tensor) -> Tensor:
        branch = nn.functional.dropout(branch, self.hidden_dropout_prob, self.training)
        scale: Tensor = self.residual_scale
        if self.training and self.drop_path_prob > 0:
            keep = 1 - self.drop_path_prob
            scale = scale * (torch.rand(branch.shape[0], 1, 1, device=branch.device) < keep).to(scale.dtype) / keep
        return torch.addcmul(hidden_states, branch, scale)


class SFTEncoder(nn.Module):
    """A stack of layers; with pre-norm, a final norm.

    Args:
        config: sizes and choices of the encoder.
        relation, mixing: the parts of every layer that depend on the kind of input; see [`SFTLayer`].
    """

    def __init__(
        self, config: SFTEncoderConfig, relation: PartOfLayer | None = None, mixing: PartOfLayer | None = None
    ):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([SFTLayer(config, relation, mixing) for _ in range(config.num_hidden_layers)])
        self.final_norm = build_norm(config) if config.norm_position == "pre" else None

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor,
        relation_inputs: tuple | None = None,
        output_attentions: bool = False,
    ) -> Tensor:
        """Encode embedded tokens.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool, `True` for real tokens.
            relation_inputs: what the modality's relation is computed from, or `None`.
            output_attentions: whether the attentions compute their weights, for output capturing.

        Returns:
            `(B, N, D)`.
        """
        k = self._num_sampled_tokens(hidden_states.shape[1])
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, relation_inputs, k, output_attentions)
        return hidden_states if self.final_norm is None else self.final_norm(hidden_states, mask)

    def _num_sampled_tokens(self, length: int) -> int:
        k = self.config.num_sampled_tokens
        # Draw K once per pass and hand it down as a number, so that recomputation under checkpointing has the same K.
        if self.training and self.config.num_sampled_tokens_range is not None:
            low, high = self.config.num_sampled_tokens_range
            k = int(torch.randint(low, high + 1, ()))
        # Slots beyond the tokens would stay empty. While tracing, they remain: the length must stay free.
        return k if torch.compiler.is_compiling() else min(k, length + self.config.num_extra_tokens)
