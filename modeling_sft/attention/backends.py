"""The attention backends, what each supports, and the choice between them.

A backend is chosen as in Transformers: `from_pretrained(..., attn_implementation="eager")` or
`model.set_attn_implementation("sft_compiled")`. Model code calls [`attend`] and need not know which backend runs.
"""

import os
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import logging
from transformers.utils.generic import maybe_autocast

from ..configuration_sft import SFTEncoderConfig
from ..nn.checks import is_transformed
from .eager import eager_attention
from .fused import compiled_attention, fused_attention
from .inputs import AttentionInputs
from .relation import SFTRelation
from .scores import ATTENTION_SCORES
from .triton.attention import triton_attention, triton_problem

logger = logging.get_logger(__name__)

DEFAULT_BACKEND = "sft_fused"
ALL_SCORES = tuple(ATTENTION_SCORES)
ALL_PROBABILITIES = ("relu", "softplus", "softmax")
NO_GRAPHS = "no graphs"


def sdpa_attention(inputs: AttentionInputs) -> Tensor:
    """PyTorch's scaled dot-product attention; returns `(B, H, N, d)`.

    Raises:
        ValueError: for other scores than dot, other probabilities than softmax, and with leak or relation.
    """
    query, key, value, leak_logits, valid, relation, score, probability, dropout = inputs
    if score != "dot" or probability != "softmax" or leak_logits is not None or relation is not None:
        raise ValueError("`sdpa` computes dot scores and softmax, without leak and relation: use `sft_fused`.")
    mask = valid[:, :, None]
    with maybe_autocast(query.device.type, enabled=False):
        output = F.scaled_dot_product_attention(
            query.to(value.dtype), key.to(value.dtype), value, attn_mask=mask, dropout_p=dropout
        )
    # In all backends, a row without any slot in use gets the output 0.
    return output.masked_fill(~mask.any(-1, keepdim=True), 0.0)


def _eager(inputs: AttentionInputs) -> Tensor:
    return eager_attention(inputs)[0]


class AttentionBackend(NamedTuple):
    """One way to compute the attention, and what it can do.

    Attributes:
        function: computes the heads' outputs.
        scores, probabilities: the values of `attention_score` and `attention_probability` that it computes.
        leak: whether it computes `attention_leak`.
        relation: whether it computes `relation`; `"no graphs"` for the relations of all modalities except graphs.
        training_memory: the memory that training keeps per layer besides inputs and outputs.
        transformable: whether `torch.func` and second derivatives work, if the score has them.
        traceable: whether `torch.compile` and `torch.export` trace it; `eager` replaces the others there.
        needs: what the machine must have, and a function that says what is missing and how to get it.
    """

    function: Callable[[AttentionInputs], Tensor]
    scores: tuple[str, ...] = ALL_SCORES
    probabilities: tuple[str, ...] = ALL_PROBABILITIES
    leak: bool = True
    relation: bool | str = True
    training_memory: str = "O(N)"
    transformable: bool = False
    traceable: bool = False
    needs: tuple[str, Callable[[], str | None]] | None = None


def compiler_problem() -> str | None:
    """Why `torch.compile` cannot work on the CPU here, with the remedy; `None` if it can."""
    requested = os.environ.get("CXX")
    candidates = [requested] if requested else ["cl"] if sys.platform == "win32" else ["g++", "clang++", "c++"]
    if any(shutil.which(candidate) for candidate in candidates):
        return None
    return (
        f"It compiles with {' or '.join(candidates)}, which is not on PATH: install a C++ compiler (or point CXX at "
        f'one), or use `attn_implementation="{DEFAULT_BACKEND}"`, which needs none.'
    )


ATTENTION_BACKENDS: dict[str, AttentionBackend] = {
    "eager": AttentionBackend(_eager, training_memory="O(N K)", transformable=True, traceable=True),
    "sdpa": AttentionBackend(sdpa_attention, ("dot",), ("softmax",), leak=False, relation=False, traceable=True),
    "sft_fused": AttentionBackend(fused_attention),
    "sft_compiled": AttentionBackend(compiled_attention, needs=("a C++ compiler", compiler_problem)),
    "sft_triton": AttentionBackend(
        triton_attention,
        scores=("maxout", "dot"),
        probabilities=("relu", "softmax"),
        relation=NO_GRAPHS,
        traceable=True,
        needs=("a GPU and Triton", triton_problem),
    ),
}


def backend_problem(
    name: str, config: SFTEncoderConfig, relation_class: type[SFTRelation] | None = None
) -> str | None:
    """Why a backend cannot run a model here, with the remedy; `None` if it can.

    Args:
        name: the backend.
        config: the model's configuration.
        relation_class: the relation that the model's encoder uses if `config.relation` is set.
    """
    backend = ATTENTION_BACKENDS.get(name)
    if backend is None:
        return f"Unknown; SFT models have {', '.join(ATTENTION_BACKENDS)}."
    wrong = []
    for field, supported in (("attention_score", backend.scores), ("attention_probability", backend.probabilities)):
        if getattr(config, field) not in supported:
            wrong.append(f"`{field}` must be {' or '.join(map(repr, supported))}, not {getattr(config, field)!r}")
    for field, is_supported in (("attention_leak", backend.leak), ("relation", backend.relation)):
        if getattr(config, field) and not is_supported:
            wrong.append(f"`{field}` must be False")
    has_kernels = relation_class is None or relation_class.has_kernels
    if config.relation and backend.relation == NO_GRAPHS and not has_kernels:
        wrong.append("`relation` must be False for graphs")
    if wrong:
        return f'{"; ".join(wrong)}. Change the configuration, or use `attn_implementation="{DEFAULT_BACKEND}"`.'
    return None if backend.needs is None else backend.needs[1]()


def resolve_backend(
    requested: str | None, config: SFTEncoderConfig, relation_class: type[SFTRelation] | None = None
) -> str:
    """The backend for a model: the requested one, or the best one that supports everything without a compiler.

    With `output_attentions` in the configuration, the default is `eager`: Transformers saves it with no other backend.

    Raises:
        ValueError: the backend is unknown, or does not support the configuration or this machine.
    """
    name = requested or ("eager" if config.output_attentions else DEFAULT_BACKEND)
    problem = backend_problem(name, config, relation_class)
    if problem is not None:
        raise ValueError(f'`attn_implementation="{name}"` is not possible here. {problem}')
    logger.info_once(f"SFT attention runs on `{name}`.")
    return name


def attend(
    inputs: AttentionInputs, attn_implementation: str | None, output_attentions: bool = False
) -> tuple[Tensor, Tensor | None, str]:
    """Attention to the sampled tokens by the backend that the model was set to.

    The eager computation replaces fused backends while `torch.compile` or `torch.export` traces, and in calls that
    ask for attention weights.

    Args:
        inputs: what to compute from.
        attn_implementation: the backend; `None` for the default.
        output_attentions: whether to return the weights as well.

    Returns:
        The heads' outputs `(B, H, N, d)`, the weights `(B, H, N, K)` or `None`, and the name of the backend that ran.
    """
    name = attn_implementation or DEFAULT_BACKEND
    tracing = torch.compiler.is_compiling()
    if output_attentions:
        if name != "eager" and not tracing:
            logger.warning_once(f"`{name}` forms no attention weights: calls with `output_attentions` run `eager`.")
        heads, weights = eager_attention(inputs, output_attentions=True)
        return heads, weights, "eager"
    if tracing and not ATTENTION_BACKENDS[name].traceable:
        name = "eager"
    if is_transformed() and not ATTENTION_BACKENDS[name].transformable:
        raise RuntimeError(
            f'`{name}` cannot be transformed by `torch.func`: call `model.set_attn_implementation("eager")` before.'
        )
    return ATTENTION_BACKENDS[name].function(inputs), None, name
