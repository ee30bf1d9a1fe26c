"""The SFT modules to measure, and the choice of their attention backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modeling_sft.attention.attention import SFTAttention
from modeling_sft.attention.backends import ATTENTION_BACKENDS
from modeling_sft.attention.inputs import AttentionInputs
from modeling_sft.configuration_sft import SFTConfig, SFTPointCloudConfig
from modeling_sft.point_cloud.modeling_sft_point_cloud import SFTPointCloudModel
from modeling_sft.point_cloud.relation import PointCloudGeometry
from modeling_sft.sampling.sampler import SFTSampler
from modeling_sft.sequence.modeling_sft import SFTModel

from .cases import ModelSize, Workload


def sft_fields(size: ModelSize) -> dict[str, Any]:
    """Fields of a configuration of the given sizes, with residual branches that have an effect from the start."""
    return {
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_hidden_layers,
        "num_attention_heads": size.num_attention_heads,
        "intermediate_size": size.intermediate_size,
        "num_sampled_tokens": size.num_sampled_tokens,
        "score_head_dim": size.score_head_dim,
        "residual_scale_init": 1.0,
    }


def sft_config(size: ModelSize, **fields: Any) -> SFTPointCloudConfig:
    """A configuration for point clouds of the given sizes."""
    return SFTPointCloudConfig(**sft_fields(size), **fields)


class SFTOnStates(nn.Module):
    """The sequence model on token states; `fields` go to its configuration."""

    def __init__(self, workload: Workload, backend: str, **fields: Any) -> None:
        super().__init__()
        self.model = SFTModel(SFTConfig(vocab_size=1, **sft_fields(workload.size), **fields))
        self.model.set_attn_implementation(backend)

    def forward(self, states: Tensor) -> Tensor:
        """Encode `(B, N, D)`."""
        return self.model(inputs_embeds=states).last_hidden_state


class SFTSingleLayer(nn.Module):
    """One encoder layer, with the relation of point clouds or without relation."""

    def __init__(self, workload: Workload, backend: str, relation: bool) -> None:
        super().__init__()
        model = SFTPointCloudModel(sft_config(workload.size, relation=relation, local_mixing=False))
        model.set_attn_implementation(backend)
        self.layer: Any = model.encoder.layers[0]
        self.num_sampled_tokens = workload.size.num_sampled_tokens

    def forward(self, states: Tensor, points: Tensor, normals: Tensor) -> Tensor:
        """Run the layer on `(B, N, D)`; only the relation uses points and normals `(B, N, 3)`."""
        mask = states.new_ones(states.shape[:2], dtype=torch.bool)
        return self.layer(states, mask, PointCloudGeometry(points, normals), self.num_sampled_tokens)


class SFTProjections(nn.Module):
    """The linear projections of one layer and nothing else: a lower bound on the time of the layer."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        single = SFTSingleLayer(workload, "eager", relation=False)
        attention, feed_forward = single.layer.attention, single.layer.feed_forward
        self.num_sampled_tokens = workload.size.num_sampled_tokens
        self.on_tokens = nn.ModuleList([attention.q_proj, attention.o_proj])
        self.on_sample = nn.ModuleList([attention.k_proj, attention.v_proj, attention.c_proj])
        self.up_proj, self.down_proj = feed_forward.up_proj, feed_forward.down_proj

    def forward(self, states: Tensor, **_: Tensor) -> tuple[Tensor, ...]:
        """Apply the projections of keys, values and leak to as many rows as the layer samples, the others to all."""
        sample = states[:, : self.num_sampled_tokens]
        outputs = [projection(states) for projection in self.on_tokens]
        outputs += [projection(sample) for projection in self.on_sample]
        return (*outputs, self.down_proj(self.up_proj(states)))

    @staticmethod
    def output_shapes(workload: Workload) -> tuple[tuple[int, ...], ...]:
        """Shapes of what `forward` returns."""
        size, batch, length = workload.size, workload.batch_size, workload.length
        sampled, heads = min(size.num_sampled_tokens, length), size.num_attention_heads
        on_tokens = [heads * size.score_head_dim, size.hidden_size]
        on_sample = [heads * size.score_head_dim, size.hidden_size, heads]
        shapes = [(batch, length, width) for width in on_tokens] + [(batch, sampled, width) for width in on_sample]
        return (*shapes, (batch, length, size.hidden_size))


class AttentionFunction(nn.Module):
    """The attention to the sampled tokens alone; its operands are parameters."""

    def __init__(
        self,
        workload: Workload,
        backend: str,
        score: str,
        probability: str,
        leak: bool,
        score_channels: int | None = None,
    ) -> None:
        super().__init__()
        size, generator = workload.size, workload.generator()
        score_channels = score_channels or size.score_head_dim
        heads, channels = size.num_attention_heads, size.hidden_size // size.num_attention_heads
        sampled = min(size.num_sampled_tokens, workload.length)

        def operand(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(workload.batch_size, heads, *shape, generator=generator))

        self.query = operand(workload.length, score_channels)
        self.key = operand(sampled, score_channels)
        self.value = operand(sampled, channels)
        self.leak_logits = operand(sampled) if leak else None
        self.backend, self.score, self.probability = backend, score, probability

    def forward(self, valid: Tensor) -> Tensor:
        """The heads' outputs `(B, H, N, d)`, given which slots of the sample are in use, `(B, 1, K)` bool."""
        inputs = AttentionInputs(
            self.query, self.key, self.value, self.leak_logits, valid, None, self.score, self.probability
        )
        return ATTENTION_BACKENDS[self.backend].function(inputs)


def attention_parts(module: nn.Module) -> list[SFTAttention | AttentionFunction]:
    """All attention inside a module."""
    return [part for part in module.modules() if isinstance(part, SFTAttention | AttentionFunction)]


def use_backend(module: nn.Module, name: str) -> None:
    """Make all attention inside a module run on a backend."""
    for part in attention_parts(module):
        if isinstance(part, SFTAttention):
            part.config._attn_implementation = name
        else:
            part.backend = name


def backends_used(module: nn.Module) -> str:
    """Names of the attention backends that ran in the last call; `""` if there is no SFT attention."""
    used = {part.last_backend if isinstance(part, SFTAttention) else part.backend for part in attention_parts(module)}
    return ", ".join(sorted(name or "none" for name in used))


def use_fixed_sample(module: nn.Module) -> None:
    """Sample evenly spaced tokens, so that rounding of the importance scores cannot change the sample."""
    for part in module.modules():
        if isinstance(part, SFTSampler):
            part.selector = _evenly_spaced


def _evenly_spaced(scores: Tensor, mask: Tensor, k: int, relation_inputs: tuple | None = None) -> Tensor:
    batch, _, length = scores.shape
    count = min(k, length)
    indices = torch.arange(count, device=scores.device) * length // count
    return nn.functional.pad(indices, (0, k - count), value=-1).expand(batch, 1, k)
