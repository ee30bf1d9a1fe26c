"""The learned sampler: every layer picks K of the N tokens, which serve as keys and values for all N queries.

Sources: SFT, arXiv 2408.05822, section 3; SAMSA, arXiv 2408.05391, section 3; docs/design.md, section 2.
Shapes: B rows, N tokens (extra tokens included), S samples (one per layer, or one per head), K sampled tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging
from transformers.utils.generic import maybe_autocast

from ..configuration_sft import SFTEncoderConfig
from .estimators import ESTIMATORS, uniform_partners
from .sample import Sample, Selector
from .selection import systematic_selection, topk_selection

logger = logging.get_logger(__name__)

# Full noise with a hard top-k at inference is what breaks trained networks; small noise does not.
LARGE_NOISE = 0.5


class SFTSampler(nn.Module):
    """Scores tokens by importance and draws (training) or selects (inference) K of them.

    Logits are s_i = importance_scale * (w . LN(x_i) + b), with a layer norm without parameters. In training the K
    largest s_i + sampling_noise * Gumbel(0, 1) are taken, which samples without replacement. Source: docs/design.md,
    section 2.
    """

    bias: nn.Parameter | None
    extra_tokens: nn.Parameter | None

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.config = config
        samples, width = config.num_samples, config.hidden_size
        self.weight = nn.Parameter(torch.empty(samples, width))
        # Differences of scores are all that straight-through sees, so a bias would get no gradient.
        has_bias = config.sampling_estimator != "straight_through"
        self.register_parameter("bias", nn.Parameter(torch.empty(samples)) if has_bias else None)
        extra = nn.Parameter(torch.empty(samples, config.num_extra_tokens, width)) if config.num_extra_tokens else None
        self.register_parameter("extra_tokens", extra)
        self.estimator = ESTIMATORS[config.sampling_estimator]
        self.selector: Selector | None = None
        self.samples_at_inference = False

    def importance_scores(self, hidden_states: Tensor) -> Tensor:
        """Importance logits of the tokens and, behind them, the extra tokens: `(B, S, N + E)`, at least float32."""
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            weight = self.weight.to(dtype)
            normed = F.layer_norm(hidden_states.to(dtype), hidden_states.shape[-1:], eps=self.config.norm_eps)
            scores = F.linear(normed, weight).transpose(1, 2)
            if self.extra_tokens is not None:
                extra = F.layer_norm(self.extra_tokens.to(dtype), hidden_states.shape[-1:], eps=self.config.norm_eps)
                extra_scores = torch.einsum("sed,sd->se", extra, weight)
                scores = torch.cat([scores, extra_scores.expand(scores.shape[0], -1, -1)], dim=-1)
            if self.bias is not None:
                scores = scores + self.bias.to(dtype)[:, None]
            return scores * self.config.importance_scale

    def forward(
        self, hidden_states: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None
    ) -> tuple[Sample, Tensor]:
        """Sample k tokens.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool, `True` for real tokens.
            k: sample size; rows with fewer tokens leave slots unused.
            relation_inputs: what a selector of `set_sampler` may look at (points of a cloud, ...).

        Returns:
            The sample, and the importance scores `(B, S, N + E)`.
        """
        scores = self.importance_scores(hidden_states)
        mask = F.pad(mask, (0, self.config.num_extra_tokens), value=True)
        noise = float(self.config.sampling_noise)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            if self.selector is not None:
                sample = self._custom_sample(scores, mask, k, relation_inputs)
            elif self.training or self.samples_at_inference:
                sample = self._random_sample(scores, mask, k, noise)
            else:
                sample = self._deterministic_sample(scores, mask, k, noise)
        # Handed over: weights that a tool has moved elsewhere are here during this call only.
        return sample._replace(extra_tokens=self.extra_tokens), scores

    def _random_sample(self, scores: Tensor, mask: Tensor, k: int, noise: float) -> Sample:
        noisy = scores
        if noise > 0:
            uniform = torch.rand_like(scores).clamp(min=torch.finfo(scores.dtype).tiny)
            noisy = scores - noise * (-uniform.log()).clamp(min=torch.finfo(scores.dtype).tiny).log()
            with torch.no_grad():
                masked = noisy.masked_fill(~mask[:, None], -torch.inf)
                top = F.pad(masked, (0, k), value=-torch.inf).topk(k, dim=-1, sorted=False)
                indices = torch.where(top.values > -torch.inf, top.indices, -1)
        else:
            indices = topk_selection(scores.detach(), mask, k)
        return self.estimator(scores, noisy, indices, mask, self.config.sampling_temperature)

    def _deterministic_sample(self, scores: Tensor, mask: Tensor, k: int, noise: float) -> Sample:
        detached = scores.detach()
        if self.config.resolved_sampling_inference == "systematic":
            indices = systematic_selection(detached, mask, k, noise)
        else:
            if noise >= LARGE_NOISE and not torch.compiler.is_compiling():
                logger.warning_once(
                    f'`sampling_inference="topk"` with `sampling_noise={noise}` selects tokens that training hardly '
                    'saw together, which usually costs much accuracy: use "systematic" (or None), or less noise.'
                )
            indices = topk_selection(detached, mask, k)
        # The gate is the one estimator that acts at inference as well.
        if self.config.sampling_estimator == "gate":
            return self.estimator(scores, scores, indices, mask, self.config.sampling_temperature)
        return Sample(indices, indices >= 0)

    def _custom_sample(self, scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None) -> Sample:
        assert self.selector is not None
        indices = self.selector(scores.detach(), mask, k, relation_inputs)
        batch, samples, length = scores.shape
        if indices.shape not in ((batch, 1, k), (batch, samples, k)):
            raise ValueError(
                f"The sampler given to `set_sampler` returned indices of shape {tuple(indices.shape)}: "
                f"expected ({batch}, {samples}, {k}) or ({batch}, 1, {k})."
            )
        indices = indices.expand(batch, samples, k)
        if not torch.compiler.is_compiling():
            if bool((indices >= length).any()):
                raise ValueError(f"The sampler given to `set_sampler` returned an index beyond the {length} tokens.")
            real = mask[:, None].expand(-1, samples, -1).gather(-1, indices.clamp(min=0))
            if not bool((real | (indices < 0)).all()):
                raise ValueError("The sampler given to `set_sampler` returned a padded token: it must heed the mask.")
        if self.config.sampling_estimator == "gate":
            return self.estimator(scores, scores, indices, mask, self.config.sampling_temperature)
        # The scorer has no say here, yet must be part of the graph: distributed training waits for its gradient.
        return Sample(indices, indices >= 0, scores.new_ones(indices.shape) + 0 * scores.sum())


def random_selector(scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None) -> Tensor:
    """A uniformly random sample (torch's global generator), for comparisons: `model.set_sampler(random_selector)`."""
    unused = torch.full((scores.shape[0], scores.shape[1], 1), -1, device=scores.device)
    return uniform_partners(unused, mask, k)
