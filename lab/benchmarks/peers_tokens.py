"""The suite `tokens`: encoders of sequences on token states, equal in width and depth.

Peers are built from their Transformers configurations, without dropout and vocabulary. If a model's encoder can be
called directly, it is called without a mask: some models build an (N, N) mask even for an input without padding.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import transformers
from torch import Tensor, nn

from .cases import BenchmarkCase, BenchmarkSuite, Inputs, ModelSize, Shapes, Workload
from .inputs import random_states
from .sft_modules import SFTOnStates

PERCEIVER_LATENTS = 256
LONGFORMER_WINDOW = 512


def _sizes(workload: Workload) -> dict[str, Any]:
    size = workload.size
    return {
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_hidden_layers,
        "num_attention_heads": size.num_attention_heads,
        "intermediate_size": size.intermediate_size,
        "max_position_embeddings": workload.length,
        "vocab_size": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }


NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SDPA: dict[str, Any] = {"attn_implementation": "sdpa"}


class ModelOnStates(nn.Module):
    """A Transformers model that takes its token states as `inputs_embeds`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, states: Tensor) -> Tensor:
        """Encode `(B, N, D)`."""
        return self.model(inputs_embeds=states).last_hidden_state


class EncoderOnStates(ModelOnStates):
    """Embeddings and encoder of a Transformers model, without its masks."""

    def forward(self, states: Tensor) -> Tensor:
        """Encode `(B, N, D)`."""
        return self.model.encoder(self.model.embeddings(inputs_embeds=states)).last_hidden_state


class LongformerOnStates(ModelOnStates):
    """Embeddings and encoder of Longformer, with local attention only, on inputs padded to whole windows."""

    def forward(self, states: Tensor) -> Tensor:
        """Encode `(B, N, D)`."""
        padding = -states.shape[1] % LONGFORMER_WINDOW
        hidden_states = nn.functional.pad(self.model.embeddings(inputs_embeds=states), (0, 0, 0, padding))
        # Longformer reads the sign of its mask: 0 means local attention, below 0 means padding.
        mask = nn.functional.pad(states.new_zeros(states.shape[:2]), (0, padding), value=-1.0)
        return self.model.encoder(hidden_states, attention_mask=mask, padding_len=padding).last_hidden_state


class PerceiverOnStates(ModelOnStates):
    """Latents and encoder of Perceiver."""

    def forward(self, states: Tensor) -> Tensor:
        """Encode `(B, N, D)` to the latents `(B, 256, D)`."""
        latents = self.model.embeddings(batch_size=states.shape[0])
        return self.model.encoder(latents, inputs=states).last_hidden_state


def build_bert(workload: Workload) -> nn.Module:
    """BERT with PyTorch's scaled dot-product attention."""
    config = transformers.BertConfig(**_sizes(workload), **NO_DROPOUT, **SDPA)
    return ModelOnStates(transformers.BertModel(config, add_pooling_layer=False))


def build_modernbert(workload: Workload) -> nn.Module:
    """ModernBERT with PyTorch's scaled dot-product attention, global in every third layer."""
    config = transformers.ModernBertConfig(**_sizes(workload), cls_token_id=0, sep_token_id=0, **SDPA)
    return ModelOnStates(transformers.ModernBertModel(config))


def build_nystromformer(workload: Workload) -> nn.Module:
    """Nystromformer with its default 64 landmarks.

    Raises:
        ValueError: the length is not a multiple of the landmarks.
    """
    config = transformers.NystromformerConfig(**_sizes(workload), **NO_DROPOUT, segment_means_seq_len=workload.length)
    if workload.length % config.num_landmarks or workload.length == config.num_landmarks:
        raise ValueError(f"Nystromformer needs a larger multiple of {config.num_landmarks} as length.")
    return EncoderOnStates(transformers.NystromformerModel(config))


def build_longformer(workload: Workload) -> nn.Module:
    """Longformer with its default window of 512 and no global tokens."""
    # Longformer's positions start after the padding id (1), and padding tokens have positions as well.
    positions = workload.length + -workload.length % LONGFORMER_WINDOW + 2
    sizes = _sizes(workload) | {"vocab_size": 2, "pad_token_id": 1, "max_position_embeddings": positions}
    config = transformers.LongformerConfig(
        **sizes, **NO_DROPOUT, attention_window=LONGFORMER_WINDOW, type_vocab_size=1, sep_token_id=0
    )
    return LongformerOnStates(transformers.LongformerModel(config, add_pooling_layer=False))


def build_fnet(workload: Workload) -> nn.Module:
    """FNet, which mixes tokens by Fourier transforms."""
    sizes = _sizes(workload)
    del sizes["num_attention_heads"]
    config = transformers.FNetConfig(**sizes, hidden_dropout_prob=0.0)
    return ModelOnStates(transformers.FNetModel(config, add_pooling_layer=False))


def build_perceiver(workload: Workload) -> nn.Module:
    """Perceiver with 256 latents and as many self-attention layers as the others have layers."""
    size = workload.size
    widening = size.intermediate_size // size.hidden_size
    config = transformers.PerceiverConfig(
        num_latents=PERCEIVER_LATENTS,
        d_latents=size.hidden_size,
        d_model=size.hidden_size,
        num_self_attends_per_block=size.num_hidden_layers,
        num_self_attention_heads=size.num_attention_heads,
        num_cross_attention_heads=size.num_attention_heads,
        self_attention_widening_factor=widening,
        cross_attention_widening_factor=widening,
        attention_probs_dropout_prob=0.0,
    )
    return PerceiverOnStates(transformers.PerceiverModel(config))


def build_bigbird(workload: Workload) -> nn.Module:
    """BigBird with block-sparse attention in its default blocks of 64.

    Raises:
        ValueError: the length is so short that it would switch to full attention.
    """
    config = transformers.BigBirdConfig(**_sizes(workload), **NO_DROPOUT, sep_token_id=0)
    shortest = (5 + 2 * config.num_random_blocks) * config.block_size
    if workload.length <= shortest:
        raise ValueError(f"BigBird is block-sparse at lengths above {shortest} only.")
    return ModelOnStates(transformers.BigBirdModel(config, add_pooling_layer=False))


def token_inputs(workload: Workload) -> Inputs:
    """States `(B, N, D)`."""
    return {"states": random_states(workload)}


def token_shapes(workload: Workload) -> Shapes:
    """One state per token."""
    return ((workload.batch_size, workload.length, workload.size.hidden_size),)


def latent_shapes(workload: Workload) -> Shapes:
    """One state per latent."""
    return ((workload.batch_size, PERCEIVER_LATENTS, workload.size.hidden_size),)


def _sft(label: str, backend: str, **fields: Any) -> BenchmarkCase:
    return BenchmarkCase(label, partial(SFTOnStates, backend=backend, **fields), token_shapes, is_sft=True)


DOT: dict[str, Any] = {"attention_score": "dot"}
DOT_SOFTMAX = DOT | {"attention_probability": "softmax", "attention_leak": False}

TOKENS = BenchmarkSuite(
    name="tokens",
    description="encoders on token states (1, N, 256): SFT, BERT, ModernBERT, Nystromformer, Longformer, FNet, ...",
    unit="tokens",
    size=ModelSize(),
    lengths=(1024, 4096, 16384),
    batch_size=lambda length: 1,
    cases={
        "sft": _sft("SFT", "sft_fused"),
        "sft_compiled": _sft("SFT (compiled)", "sft_compiled"),
        "sft_triton": _sft("SFT (Triton)", "sft_triton"),
        "sft_eager": _sft("SFT (eager)", "eager"),
        "sft_without_convolution": _sft("SFT (no convolution)", "sft_fused", local_mixing=False),
        "sft_relation": _sft("SFT (relation)", "sft_fused", relation=True),
        "sft_dot": _sft("SFT (dot)", "sft_fused", **DOT),
        "sft_dot_compiled": _sft("SFT (dot, compiled)", "sft_compiled", **DOT),
        "sft_dot_softmax_sdpa": _sft("SFT (dot, softmax, sdpa)", "sdpa", **DOT_SOFTMAX),
        "bert": BenchmarkCase("BERT (sdpa)", build_bert, token_shapes),
        "modernbert": BenchmarkCase("ModernBERT (sdpa)", build_modernbert, token_shapes),
        "nystromformer": BenchmarkCase("Nystromformer", build_nystromformer, token_shapes),
        "longformer": BenchmarkCase("Longformer", build_longformer, token_shapes),
        "bigbird": BenchmarkCase("BigBird", build_bigbird, token_shapes),
        "fnet": BenchmarkCase("FNet", build_fnet, token_shapes),
        "perceiver": BenchmarkCase("Perceiver (no output per token)", build_perceiver, latent_shapes),
    },
    default_models=(
        "sft",
        "sft_dot",
        "bert",
        "modernbert",
        "nystromformer",
        "longformer",
        "fnet",
        "perceiver",
    ),
    reference="sft",
    inputs=token_inputs,
    note="ModernBERT's feed-forward is gated, hence its parameters.",
)
