"""Local mixing of sequences: a depthwise convolution, so that a token knows its neighbours before it is sampled."""

from torch import Tensor, nn

from .configuration_sft import SFTConfig
from .depthwise_convolution_sft import depthwise_convolution
from .initialization_sft import unit_variance


class SFTConvolutionMixing(nn.Module):
    """A depthwise convolution over neighbouring tokens, padding counting as zeros.

    A branch of its own, before the attention: a byte or a pixel alone says little about its importance.
    """

    parallel = False

    def __init__(self, config: SFTConfig):
        super().__init__()
        width, size = config.hidden_size, config.local_mixing_size
        self.conv = unit_variance(nn.Conv1d(width, width, size, groups=width))

    def forward(self, hidden_states: Tensor, mask: Tensor, relation_inputs: tuple | None = None) -> Tensor:
        """Mix `(B, N, D)` under the mask `(B, N)`; an even window sees one token more behind than ahead."""
        states = hidden_states * mask[..., None].to(hidden_states.dtype)
        return depthwise_convolution(states, self.conv.weight, self.conv.bias)


__all__ = ["SFTConvolutionMixing"]
