"""The attention module: sample K tokens, then let all N tokens attend to them (docs/design.md, section 3)."""

import torch
from torch import Tensor, nn

from ..configuration_sft import SFTEncoderConfig
from ..nn.functional import gather_rows
from ..nn.initialization import unit_variance_linear
from ..sampling.estimators import mix_pairs
from ..sampling.sample import Sample
from ..sampling.sampler import SFTSampler
from .backends import attend
from .inputs import AttentionInputs
from .relation import SFTRelation


class SFTAttention(nn.Module):
    """Sample K tokens, then let all N tokens attend to them.

    Queries and keys are drawn with unit variance whatever `initializer_range` says: the scores' scaling rests on it,
    and with the usual 0.02 every row of relu(maxout) would start, and stay, empty.

    Args:
        config: sizes and choices of the attention.
        relation: the module that scales and shifts the scores, or `None`.

    Attributes:
        last_backend: name of the attention backend that the last call ran.
    """

    def __init__(self, config: SFTEncoderConfig, relation: SFTRelation | None = None):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        width, score_width = config.hidden_size, config.num_attention_heads * config.score_channels
        self.sampler = SFTSampler(config)
        self.q_proj = unit_variance_linear(width, score_width)
        # No biases on what is projected after mixing: a projected mixture is then the mixture of projections.
        self.k_proj = unit_variance_linear(width, score_width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.c_proj = nn.Linear(width, self.num_heads, bias=False) if config.attention_leak else None
        self.o_proj = nn.Linear(width, width)
        self.relation = relation
        self.last_backend: str | None = None

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor,
        relation_inputs: tuple | None,
        num_sampled_tokens: int,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Attend to a sample of the tokens.

        Args:
            hidden_states: `(B, N, D)`.
            mask: `(B, N)` bool, `True` for real tokens.
            relation_inputs: what the modality's relation is computed from, or `None`.
            num_sampled_tokens: K.
            output_attentions: also return the attention weights.

        Returns:
            The output `(B, N, D)`, the weights `(B, H, N, K)` or `None`, the sampled tokens `(B, S, K)` and the
            importance scores `(B, N, S)`.
        """
        batch, length, _ = hidden_states.shape
        sample, importance = self.sampler(hidden_states, mask, num_sampled_tokens, relation_inputs)
        query = self.q_proj(hidden_states).view(batch, length, self.num_heads, -1).transpose(1, 2)
        key, value, leak_logits = self._keys(hidden_states, sample)
        relation = None
        if self.relation is not None and relation_inputs is not None:
            relation = self.relation(relation_inputs, sample)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        kind = (self.config.attention_score, self.config.attention_probability)
        inputs = AttentionInputs(query, key, value, leak_logits, sample.valid, relation, *kind, dropout)
        heads, attentions, backend = attend(inputs, self.config._attn_implementation, output_attentions)
        if not torch.compiler.is_compiling():
            self.last_backend = backend
        # At a million tokens these are the largest tensors beside the states.
        del query, key, value, relation, inputs
        output = self.o_proj(heads.transpose(1, 2).reshape(batch, length, -1))
        return output, attentions, sample.indices, importance[..., :length].transpose(1, 2)

    def _keys(self, hidden_states: Tensor, sample: Sample) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gather and mix the sampled states, then project only those: keys, values and leak logits per head."""
        tokens, indices, partners = hidden_states, sample.indices, sample.partners
        extra = sample.extra_tokens
        if extra is not None:
            # Extra token e of sample s stands behind the tokens, at N + s * E + e.
            tokens = torch.cat([tokens, extra.to(tokens.dtype).flatten(0, 1).expand(tokens.shape[0], -1, -1)], dim=1)
            shift = torch.arange(len(extra), device=indices.device)[:, None] * extra.shape[1]
            length = hidden_states.shape[1]
            indices = torch.where(indices >= length, indices + shift, indices)
            partners = None if partners is None else torch.where(partners >= length, partners + shift, partners)
        if partners is None:
            rows, partner_rows = gather_rows(tokens, indices), None
        else:
            # One gather, then a split: each gather writes a full gradient tensor in backward.
            rows, partner_rows = gather_rows(tokens, torch.cat([indices, partners], dim=-1)).chunk(2, dim=2)
        sampled = mix_pairs(rows, partner_rows, sample, self.config.sampling_estimator)
        leak_logits = None if self.c_proj is None else self._own_channels(self.c_proj(sampled)).squeeze(-1)
        return self._own_channels(self.k_proj(sampled)), self._own_channels(self.v_proj(sampled)), leak_logits

    def _own_channels(self, projected: Tensor) -> Tensor:
        """Each head's channels of its sample: `(B, S, K, H * c)` to `(B, H, K, c)`."""
        heads = projected.unflatten(-1, (self.num_heads, -1))
        if heads.shape[1] == 1:
            return heads.squeeze(1).transpose(1, 2)
        return heads.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
