"""The norms of an encoder, all called with the token states and their mask."""

import torch
from torch import Tensor, nn

from ..configuration_sft import SFTEncoderConfig
from .checks import can_check_values


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
