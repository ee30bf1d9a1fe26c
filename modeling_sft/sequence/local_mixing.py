"""Local mixing of sequences: a depthwise convolution before the sampler (docs/design.md, section 5)."""

from torch import Tensor, nn

from ..configuration_sft import SFTConfig
from ..nn.initialization import unit_variance
from .depthwise_convolution import depthwise_convolution


class SFTDepthwiseConvolution(nn.Conv1d):
    """A convolution of each channel by itself, over the middle one of three dimensions, as long as its input."""

    def __init__(self, width: int, size: int):
        super().__init__(width, width, size, groups=width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Convolve `(B, N, D)`."""
        return depthwise_convolution(hidden_states, self.weight, self.bias)


class SFTConvolutionMixing(nn.Module):
    """A depthwise convolution over neighbouring tokens, padding counting as zeros.

    A branch of its own, before the attention: a byte or a pixel alone says little about its importance.
    """

    parallel = False

    def __init__(self, config: SFTConfig):
        super().__init__()
        width, size = config.hidden_size, config.local_mixing_size
        self.conv = unit_variance(SFTDepthwiseConvolution(width, size))

    def forward(self, hidden_states: Tensor, mask: Tensor, relation_inputs: tuple | None = None) -> Tensor:
        """Mix `(B, N, D)` under the mask `(B, N)`; an even window sees one token more behind than ahead."""
        return self.conv(hidden_states * mask[..., None].to(hidden_states.dtype))
