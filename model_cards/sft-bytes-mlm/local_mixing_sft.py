"""Which layers mix tokens locally, before the sampler looks at them.

The papers do not have it; a single byte, atom or point says little about its importance by itself. Point clouds do it
once, in the embeddings.
"""

from torch import nn

from .configuration_sft import SFTEncoderConfig
from .local_mixing_graph_sft import SFTMessagePassing
from .local_mixing_sequence_sft import SFTConvolutionMixing

LAYER_MIXINGS: dict[str, type[nn.Module]] = {"graph": SFTMessagePassing, "sequence": SFTConvolutionMixing}


def build_layer_mixing(config: SFTEncoderConfig) -> nn.Module | None:
    """The local mixing that every layer of the configuration's modality has, if any."""
    mixing_class = LAYER_MIXINGS.get(config.modality)
    return mixing_class(config) if config.local_mixing and mixing_class is not None else None


__all__ = ["build_layer_mixing"]
