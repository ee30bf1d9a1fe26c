"""The feed-forward branch of a layer (docs/design.md, section 4)."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from ..configuration_sft import SFTEncoderConfig
from .blocks import in_blocks

TOKENS_AT_A_TIME = 1024
# Inner states of a feed-forward on CPU, 64 MiB in float32, above which training computes them again in backward.
INNER_ELEMENTS_KEPT = 2**24


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
