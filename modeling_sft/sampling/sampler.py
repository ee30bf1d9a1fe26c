"""The learned sampler: every layer picks K of the N tokens, which serve as keys and values for all N queries.

Sources: SFT, arXiv 2408.05822, section 3; SAMSA, arXiv 2408.05391, section 3; docs/design.md, section 2.
Shapes: B rows, N tokens (extra tokens included), S samples (one per layer, or one per head), K sampled tokens.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging
from transformers.utils.generic import maybe_autocast

from ..configuration_sft import SFTEncoderConfig
from .estimators import ESTIMATORS, mark_damage, uniform_partners
from .sample import Sample, Selector
from .selection import systematic_selection, topk_selection

logger = logging.get_logger(__name__)

# From this noise on, a top-k choice at inference costs trained networks much accuracy; less noise does not.
LARGE_NOISE = 0.5


def content_direction(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A fixed unit vector `(D,)` in general position, on which distinct states have distinct projections.

    Phases are integers until the last step, so that it is the same vector on every device.
    """
    index = torch.arange(1, width + 1, device=device)
    turns = (index * index * 40503 % 2**16).to(dtype) / 2**16
    return (2 * math.pi * turns).cos() * math.sqrt(2 / width)


class SFTSampler(nn.Module):
    """Scores tokens by importance and draws (training) or selects (inference) K of them.

    Logits are s_i = importance_scale * (w . LN(x_i) + b), with a layer norm without parameters. Training takes the K
    largest values of s_i + sampling_noise * Gumbel(0, 1), which is sampling without replacement. Source:
    docs/design.md, section 2.
    """

    bias: nn.Parameter | None
    extra_tokens: nn.Parameter | None

    def __init__(self, config: SFTEncoderConfig):
        super().__init__()
        self.config = config
        samples, width = config.num_samples, config.hidden_size
        self.weight = nn.Parameter(torch.empty(samples, width))
        # The straight-through estimator uses differences of scores only, so a bias would get no gradient.
        has_bias = config.sampling_estimator != "straight_through"
        self.register_parameter("bias", nn.Parameter(torch.empty(samples)) if has_bias else None)
        extra = nn.Parameter(torch.empty(samples, config.num_extra_tokens, width)) if config.num_extra_tokens else None
        self.register_parameter("extra_tokens", extra)
        self.estimator = ESTIMATORS[config.sampling_estimator]
        self.selector: Selector | None = None
        self.samples_at_inference = False

    def _project(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Importance logits `(B, S, N + E)` and contents `(B, 1 or S, N + E)` of the tokens, then the extra tokens.

        Both are in float32 or better.
        """
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        batch, _, width = hidden_states.shape
        with maybe_autocast(hidden_states.device.type, enabled=False):
            weight, direction = self.weight.to(dtype), content_direction(width, dtype, hidden_states.device)
            normed = F.layer_norm(hidden_states.to(dtype), (width,), eps=self.config.norm_eps)
            # Two products: of one, scores and contents would lie between each other, which slows all that follows.
            scores, content = F.linear(normed, weight).transpose(1, 2), (normed.detach() @ direction)[:, None]
            if self.extra_tokens is not None:
                extra = F.layer_norm(self.extra_tokens.to(dtype), (width,), eps=self.config.norm_eps)
                extra_scores = torch.einsum("sed,sd->se", extra, weight)
                scores = torch.cat([scores, extra_scores.expand(batch, -1, -1)], dim=-1)
                content = content.expand(-1, len(extra), -1)
                content = torch.cat([content, (extra.detach() @ direction).expand(batch, -1, -1)], dim=-1)
            if self.bias is not None:
                scores = scores + self.bias.to(dtype)[:, None]
            return scores * self.config.importance_scale, content

    def forward(
        self, hidden_states: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None
    ) -> tuple[Sample, Tensor]:
        """Sample k tokens.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool, `True` for real tokens.
            k: sample size; rows with fewer tokens leave slots unused.
            relation_inputs: inputs that a selector of `set_sampler` may use, such as the points of a cloud.

        Returns:
            The sample, and the importance scores `(B, S, N + E)`. Rows whose scores hold NaN have NaN as weights.
        """
        scores, content = self._project(hidden_states)
        mask = F.pad(mask, (0, self.config.num_extra_tokens), value=True)
        noise = float(self.config.sampling_noise)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            if self.selector is not None:
                sample = self._custom_sample(scores, mask, k, relation_inputs)
            elif self.training or self.samples_at_inference:
                sample = self._random_sample(scores, content, mask, k, noise)
            else:
                sample = self._deterministic_sample(scores, content, mask, k, noise)
        sample = mark_damage(sample, scores, mask)
        # Pass the extra tokens on now: a tool that offloads weights has them in place during this call only.
        return sample._replace(extra_tokens=self.extra_tokens), scores

    def _random_sample(self, scores: Tensor, content: Tensor, mask: Tensor, k: int, noise: float) -> Sample:
        noisy = scores
        if noise > 0:
            uniform = torch.rand_like(scores).clamp(min=torch.finfo(scores.dtype).tiny)
            noisy = scores - noise * (-uniform.log()).clamp(min=torch.finfo(scores.dtype).tiny).log()
            with torch.no_grad():
                masked = noisy.masked_fill(~mask[:, None], -torch.inf)
                top = F.pad(masked, (0, k), value=-torch.inf).topk(k, dim=-1, sorted=False)
                indices = torch.where(top.values > -torch.inf, top.indices, -1)
        else:
            indices = topk_selection(scores.detach(), content, mask, k)
        return self.estimator(scores, noisy, indices, mask, self.config.sampling_temperature)

    def _deterministic_sample(self, scores: Tensor, content: Tensor, mask: Tensor, k: int, noise: float) -> Sample:
        detached = scores.detach()
        if self.config.resolved_sampling_inference == "systematic":
            indices = systematic_selection(detached, content, mask, k, noise)
        else:
            if noise >= LARGE_NOISE and not torch.compiler.is_compiling():
                logger.warning_once(
                    f'`sampling_inference="topk"` with `sampling_noise={noise}` selects tokens that training hardly '
                    'saw together, which usually costs much accuracy: use "systematic" (or None), or less noise.'
                )
            indices = topk_selection(detached, content, mask, k)
        # Only the gate weights tokens at inference as well; the other estimators give plain tokens.
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
        # Weights are 1, plus 0 times the scores: distributed training waits for a gradient of the scorer.
        return Sample(indices, indices >= 0, scores.new_ones(indices.shape) + 0 * scores.sum())


def random_selector(scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None) -> Tensor:
    """A uniform random sample from torch's global generator, for comparisons: `model.set_sampler(random_selector)`."""
    unused = torch.full((scores.shape[0], scores.shape[1], 1), -1, device=scores.device)
    return uniform_partners(unused, mask, k)
