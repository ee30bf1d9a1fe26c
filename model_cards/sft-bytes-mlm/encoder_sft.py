"""The encoder that all modalities share: norms, feed-forward, layer, stack."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_sft import SFTAttention
from .blocks_sft import in_blocks
from .configuration_sft import SFTEncoderConfig
from .local_mixing_sft import build_layer_mixing
from .validation_sft import can_check_values

TOKENS_AT_A_TIME = 1024
# Inner states of a feed-forward on CPU, 64 MiB in float32, above which training computes them again in backward.
INNER_ELEMENTS_KEPT = 2**24


class SFTLayerNorm(nn.LayerNorm):
    """Layer norm with the call signature of the other norms: the mask is not needed."""

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Normalise `(B, N, D)`."""
        return super().forward(hidden_states)


class SFTRMSNorm(nn.RMSNorm):
    """Root-mean-square norm (arXiv 1910.07467) with the call signature of the other norms."""

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Normalise `(B, N, D)`."""
        return super().forward(hidden_states)


class SFTMaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the real tokens of a batch; padding has no part in the statistics.

    Under activation checkpointing the running statistics move twice per step, as those of any batch norm do.
    """

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Normalise `(B, N, D)` given the mask `(B, N)`; in training, update the running statistics."""
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        mean, variance = self.running_mean, self.running_var
        assert mean is not None and variance is not None and self.num_batches_tracked is not None
        # The library's own takes one pass where the sums below take many, but needs weights of the same dtype.
        if can_check_values(mask) and self.weight.dtype == dtype and (not self.training or int(mask.sum()) > 1):
            return self._by_library(hidden_states.to(dtype), mask).to(hidden_states.dtype)
        if self.training:
            weight = mask[..., None].to(dtype)
            count = weight.sum().clamp(min=1)
            states = hidden_states.to(dtype)
            mean = (states * weight).sum((0, 1)) / count
            variance = ((states - mean).square() * weight).sum((0, 1)) / count
            with torch.no_grad():
                momentum = 0.1 if self.momentum is None else self.momentum
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean.to(self.running_mean), momentum)
                self.running_var.lerp_(unbiased.to(self.running_var), momentum)
                self.num_batches_tracked.add_(1)
        scale = self.weight.to(dtype) * torch.rsqrt(variance.to(dtype) + self.eps)
        return ((hidden_states.to(dtype) - mean.to(dtype)) * scale + self.bias.to(dtype)).to(hidden_states.dtype)

    def _by_library(self, states: Tensor, mask: Tensor) -> Tensor:
        tokens = states.flatten(0, 1)
        if not self.training or bool(mask.all()):
            return super().forward(tokens).view_as(states)
        real = mask.flatten().nonzero().squeeze(1)
        normal = super().forward(tokens.index_select(0, real))
        return torch.zeros_like(tokens).index_copy(0, real, normal).view_as(states)


NORMS: dict[str, type[nn.Module]] = {"layer": SFTLayerNorm, "rms": SFTRMSNorm, "batch": SFTMaskedBatchNorm}


def build_norm(config: SFTEncoderConfig) -> nn.Module:
    """The norm of `config.norm_type`; call it with `(hidden_states, mask)`."""
    return NORMS[config.norm_type](config.hidden_size, eps=config.norm_eps)


class SFTFeedForward(nn.Module):
    """Linear, activation, linear. With `hidden_act="linear"` or `"gelu"` the theory of arXiv 2408.05822 applies."""

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map `(..., D)` to `(..., D)`."""
        if torch.compiler.is_compiling() or hidden_states.device.type != "cpu":
            return self._transform(hidden_states)
        if torch.is_grad_enabled():
            inner = hidden_states.shape[:-1].numel() * self.up_proj.out_features
            if inner <= INNER_ELEMENTS_KEPT:
                return self._transform(hidden_states)
            # Two tensors of inner states are most of what a layer keeps for backward; making them again is cheap.
            return checkpoint(self._transform, hidden_states, use_reentrant=False, preserve_rng_state=False)
        # At inference, inner states of all tokens at once would leave the cache and need fresh memory.
        tokens = hidden_states.flatten(0, -2)[None]
        output = in_blocks(lambda part: self._transform(tokens[:, part]), tokens.shape[1], TOKENS_AT_A_TIME)
        return output.view_as(hidden_states)

    def _transform(self, hidden_states: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.up_proj(hidden_states)))


class SFTLayer(GradientCheckpointingLayer):
    """Attention to a sample and feed-forward, each a residual branch under one learned scale.

    Local mixing is a branch before them (sequences), or part of the attention's branch (graphs).

    Pre-norm: x + scale * Drop(branch(norm(x))); post-norm: norm(x + scale * Drop(branch(x))).
    """

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.hidden_dropout_prob, self.drop_path_prob = config.hidden_dropout_prob, config.drop_path_prob
        self.local_mixing = build_layer_mixing(config)
        # A branch of its own has its own norm; one beside the attention shares the attention's.
        mixes_before = self.local_mixing is not None and not self.local_mixing.parallel
        self.local_mixing_norm = build_norm(config) if mixes_before else None
        self.attention = SFTAttention(config)
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
            output_attentions: have the attention form its weights, for output capturing.

        Returns:
            `(B, N, D)`.
        """
        if self.local_mixing is not None and self.local_mixing_norm is not None:
            states = self.local_mixing_norm(hidden_states, mask) if self.pre_norm else hidden_states
            hidden_states = self._residual(hidden_states, self.local_mixing(states, mask, relation_inputs))
            if not self.pre_norm:
                hidden_states = self.local_mixing_norm(hidden_states, mask)
        states = self.attention_norm(hidden_states, mask) if self.pre_norm else hidden_states
        # One name throughout: what a branch is done with leaves memory.
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
    """A stack of layers; with pre-norm, a final norm."""

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([SFTLayer(config) for _ in range(config.num_hidden_layers)])
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
            output_attentions: have the attentions form their weights, for output capturing.

        Returns:
            `(B, N, D)`.
        """
        k = self._num_sampled_tokens()
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, relation_inputs, k, output_attentions)
        return hidden_states if self.final_norm is None else self.final_norm(hidden_states, mask)

    def _num_sampled_tokens(self) -> int:
        # One draw per pass, handed down as a number: recomputation under checkpointing must not draw another.
        if self.training and self.config.num_sampled_tokens_range is not None:
            low, high = self.config.num_sampled_tokens_range
            return int(torch.randint(low, high + 1, ()))
        return self.config.num_sampled_tokens


__all__ = ["SFTEncoder", "SFTLayer", "build_norm"]
