"""The suites `attention`, the attention function alone, and `layer`, one encoder layer against its projections."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from .cases import BenchmarkCase, BenchmarkSuite, Goal, Inputs, ModelSize, Shapes, Workload
from .inputs import random_states, random_surfaces
from .peers_tokens import token_shapes
from .sft_modules import AttentionFunction, SFTProjections, SFTSingleLayer


def attention_inputs(workload: Workload) -> Inputs:
    """A mask of the slots in use, which are all slots of the sample."""
    sampled = min(workload.size.num_sampled_tokens, workload.length)
    return {"valid": torch.ones(workload.batch_size, 1, sampled, dtype=torch.bool, device=workload.device)}


def attention_shapes(workload: Workload) -> Shapes:
    """The heads' outputs `(B, H, N, d)`."""
    heads = workload.size.num_attention_heads
    return ((workload.batch_size, heads, workload.length, workload.size.hidden_size // heads),)


def _maxout(backend: str) -> BenchmarkCase:
    build = partial(AttentionFunction, backend=backend, score="maxout", probability="relu", leak=True)
    return BenchmarkCase(f"maxout, relu, leak: {backend}", build, attention_shapes, is_sft=True)


def _dot(backend: str) -> BenchmarkCase:
    build = partial(AttentionFunction, backend=backend, score="dot", probability="softmax", leak=False)
    return BenchmarkCase(f"dot, softmax: {backend}", build, attention_shapes, is_sft=True)


ATTENTION = BenchmarkSuite(
    name="attention",
    description="the attention to K sampled tokens alone, without a model, by each backend",
    unit="queries",
    size=ModelSize(),
    lengths=(1024, 4096, 16384),
    batch_size=lambda length: 1,
    cases={
        "eager": _maxout("eager"),
        "sft_fused": _maxout("sft_fused"),
        "sft_compiled": _maxout("sft_compiled"),
        "sft_triton": _maxout("sft_triton"),
        "dot_eager": _dot("eager"),
        "dot_sdpa": _dot("sdpa"),
        "dot_fused": _dot("sft_fused"),
        "dot_compiled": _dot("sft_compiled"),
        "dot_triton": _dot("sft_triton"),
    },
    default_models=("eager", "sft_fused", "sft_compiled", "dot_eager", "dot_sdpa", "dot_fused"),
    reference="eager",
    inputs=attention_inputs,
    goals=(Goal("sft_fused", "eager", "training", 16384, time_ratio=1.0, memory_ratio=0.2),),
)


def layer_inputs(workload: Workload) -> Inputs:
    """States `(B, N, D)`, points and normals `(B, N, 3)`."""
    return {"states": random_states(workload), **random_surfaces(workload)}


def build_projections(workload: Workload) -> nn.Module:
    """The linear projections of the layer alone."""
    return SFTProjections(workload)


def _layer(label: str, backend: str, relation: bool) -> BenchmarkCase:
    build = partial(SFTSingleLayer, backend=backend, relation=relation)
    return BenchmarkCase(label, build, token_shapes, is_sft=True)


LAYER = BenchmarkSuite(
    name="layer",
    description="one SFT encoder layer, with and without relation, against its own linear projections",
    unit="tokens",
    size=ModelSize(),
    lengths=(16384,),
    batch_size=lambda length: 1,
    cases={
        "projections": BenchmarkCase("linear projections alone", build_projections, SFTProjections.output_shapes),
        "layer": _layer("layer", "sft_fused", relation=False),
        "layer_compiled": _layer("layer, compiled", "sft_compiled", relation=False),
        "layer_relation": _layer("layer with relation", "sft_fused", relation=True),
        "layer_relation_compiled": _layer("layer with relation, compiled", "sft_compiled", relation=True),
    },
    default_models=("projections", "layer", "layer_relation"),
    reference="projections",
    inputs=layer_inputs,
    note="Projections: queries, output and feed-forward of all tokens; keys, values and leak of the sample.",
)
