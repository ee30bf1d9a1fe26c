"""Attention to sampled tokens by Triton kernels, as PyTorch operators with autograd, fake and FLOP registrations.

The kernels keep no scores: training memory is O(N (d_s + d)). The relation of point clouds and sequences is computed
inside them, of the sampled token alone. What they compute is what `eager_attention` computes (SFT, arXiv 2408.05822,
section 3).
"""

import importlib.util
import math
import os
import re
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from transformers.utils.generic import maybe_autocast

from ..fused import summed_leak
from ..inputs import AttentionInputs
from ..relation import PreparedRelation
from ..scores import MAXOUT_MEAN, MAXOUT_STD

# Each copy of the code, as checkpoints carry them, has operators of its own.
NAMESPACE = re.sub(r"\W", "_", __name__)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Kinds of relation, as the kernels number them.
NO_RELATION, DISTANCES, DISTANCES_AND_NORMALS, OFFSETS = range(4)
# A program has one query (or, for gradients of keys, one key) for each of its 128 threads, and steps through the
# tokens of the other kind: sums over a step stay within a thread. A long step and a relation, or float32, would need
# more registers than there are.
TOKENS_PER_PROGRAM = 128
TOKENS_PER_STEP = 32
TOKENS_PER_SHORT_STEP = 16
# The operands of those 128 tokens have this many bytes at most; if they had more, a program has fewer tokens. Three
# times as much shared memory, which float32 takes, is what the smallest GPUs have.
BYTES_PER_PROGRAM = 2**15
# The gradients of keys and values are computed in parts, which are summed in a fixed order: in as many as give two
# programs to each processor of the largest GPUs, if each part then has so many queries.
KEY_PROGRAMS = 264
QUERIES_PER_PART = 512
REMEDY = 'use `attn_implementation="sft_fused"`.'


def triton_problem() -> str | None:
    """What keeps Triton kernels from running here, with the remedy; `None` if nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "It needs Triton: `pip install triton`, or use another backend."
    if not torch.cuda.is_available() and not _is_interpreted():
        return "It needs a GPU (or, for tests, the environment variable TRITON_INTERPRET=1): use another backend."
    return None


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def _kernels() -> tuple[Any, Any, Any]:
    """The kernels of forward, of the gradient of queries, and of those of keys and values; imports Triton."""
    from .kernels import forward_kernel, key_gradient_kernel, query_gradient_kernel

    return forward_kernel, query_gradient_kernel, key_gradient_kernel


class _Launch:
    """Sizes, settings and common arguments of the kernels for one set of operands."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        valid: Tensor,
        weight: Tensor | None,
        query_places: Tensor | None,
        key_places: Tensor | None,
        score: str,
        probability: str,
    ):
        self.batch, self.heads, channels, self.length = query.shape
        self.num_keys, self.width = value.shape[2:]
        self.relation = _relation_kind(weight, query_places)
        self.constants = {
            "MAXOUT": score == "maxout",
            "SOFTMAX": probability == "softmax",
            "RELATION": self.relation,
            "CHANNELS": channels,
            "PADDED_CHANNELS": _padded(channels),
            "WIDTH": self.width,
            "PADDED_WIDTH": _padded(self.width),
        }
        fits = self.relation == NO_RELATION and value.element_size() == 2
        step = TOKENS_PER_STEP if fits else TOKENS_PER_SHORT_STEP
        own_width = _padded(self.width) if score == "maxout" else _padded(self.width) + _padded(channels)
        fitting = max(16, BYTES_PER_PROGRAM // own_width // value.element_size())
        own = min(TOKENS_PER_PROGRAM, 1 << (fitting.bit_length() - 1))
        self.query_tiles = {"QUERIES": own, "KEYS": step}
        self.key_tiles = {"QUERIES": step, "KEYS": own}
        self.both = self.batch * self.heads
        self.query_blocks = math.ceil(self.length / own)
        self.key_blocks = math.ceil(self.num_keys / own)
        # Kernels do not read pointers of what is absent.
        nothing = query
        self.weights = [nothing, nothing] if weight is None else list(weight.float().contiguous())
        self.places = [nothing if places is None else places.contiguous() for places in (query_places, key_places)]
        self.operands = [query.contiguous(), key.contiguous(), value.contiguous(), valid.to(torch.uint8)]
        if score == "maxout":
            shift, factor = channels * MAXOUT_MEAN, 1 / (MAXOUT_STD * math.sqrt(channels))
        else:
            shift, factor = 0.0, 1 / math.sqrt(channels)
        self.sizes = [
            self.length,
            self.num_keys,
            self.heads,
            valid.shape[1],
            0 if query_places is None else query_places[0].numel(),
            0 if key_places is None else key_places[0, 0].numel(),
            0 if weight is None else weight.shape[-1],
            shift,
            factor,
        ]

    def part_length(self) -> int:
        """How many queries make one part of the gradients of keys and values."""
        parts = max(1, KEY_PROGRAMS // (self.both * self.key_blocks))
        queries = max(QUERIES_PER_PART, math.ceil(self.length / parts))
        return TOKENS_PER_STEP * math.ceil(queries / TOKENS_PER_STEP)

    def empty(self, *shape: int) -> Tensor:
        """A float32 tensor to be written."""
        return self.operands[0].new_empty(shape, dtype=torch.float32)

    def zeros(self, *shape: int) -> Tensor:
        """A float32 tensor to be added to."""
        return self.operands[0].new_zeros(shape, dtype=torch.float32)


def _padded(size: int) -> int:
    # Matrix products of fewer than 16 channels do not exist on GPUs.
    return max(16, 1 << (size - 1).bit_length())


def _relation_kind(weight: Tensor | None, query_places: Tensor | None) -> int:
    if weight is None or query_places is None:
        return NO_RELATION
    if not query_places.is_floating_point():
        return OFFSETS
    return DISTANCES_AND_NORMALS if weight.shape[-1] == 5 else DISTANCES


@torch.library.custom_op(f"{NAMESPACE}::sampled_attention", mutates_args=())
def sampled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor,
    leak: Tensor | None,
    relation_weight: Tensor | None,
    query_places: Tensor | None,
    key_places: Tensor | None,
    score: str,
    probability: str,
) -> tuple[Tensor, Tensor]:
    """Attention of all queries to the sampled tokens.

    Args:
        query: `(B, H, d_s, N)`, in float32 for maxout, in the type of the values for dot.
        key: `(B, H, d_s, K)`.
        value: `(B, H, K, d)` float32, float16 or bfloat16.
        valid: `(B, S, K)` bool.
        leak: `(B, H)` float32, the sum of the leaks, for softmax its logarithm; or `None`.
        relation_weight: `(2, H, R)`, scale and bias weights of point-pair features; `(2, H, T)`, tables over offsets;
            or `None`.
        query_places: `(B, C, N)` float32, points and normals; `(B, N)` long, positions; or `None`.
        key_places: `(B, S, C + 1, K)`, the last one telling points from extra tokens; `(B, S, K)` long; or `None`.
        score: `"maxout"` or `"dot"`.
        probability: `"relu"` or `"softmax"`.

    Returns:
        The heads' outputs `(B, H, N, d)`, and what normalises the rows, `(B, H, N)` float32.
    """
    launch = _Launch(query, key, value, valid, relation_weight, query_places, key_places, score, probability)
    output, normaliser = _empty_outputs(query, value)
    _kernels()[0][(launch.both * launch.query_blocks,)](
        *launch.operands,
        launch.operands[0] if leak is None else leak.contiguous(),
        *launch.weights,
        *launch.places,
        output,
        normaliser,
        *launch.sizes,
        output.stride(0),
        output.stride(2),
        LEAK=leak is not None,
        **launch.query_tiles,
        **launch.constants,
    )
    return output, normaliser


@sampled_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _empty_outputs(query, value)


def _empty_outputs(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, _, length = query.shape
    # Laid out as the projection behind the attention wants it.
    output = value.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
    return output, query.new_empty(batch, heads, length, dtype=torch.float32)


@torch.library.custom_op(f"{NAMESPACE}::sampled_attention_backward", mutates_args=())
def sampled_attention_backward(
    grad: Tensor,
    output: Tensor,
    normaliser: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor,
    relation_weight: Tensor | None,
    query_places: Tensor | None,
    key_places: Tensor | None,
    score: str,
    probability: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and relation weights (empty without relation), and `along`, in float32.

    `along` `(B, H, N)` holds the products of each output and its gradient.

    Args:
        grad: `(B, H, N, d)`, of the output.
        output, normaliser: what [`sampled_attention`] returned.
        query, key, value, valid, relation_weight, query_places, key_places, score, probability: its arguments.
    """
    launch = _Launch(query, key, value, valid, relation_weight, query_places, key_places, score, probability)
    _, query_gradient, key_gradient = _kernels()
    batch, heads, channels, length = query.shape
    grad, output = (x if x.stride(-1) == 1 else x.contiguous() for x in (grad, output))
    before = [*launch.operands, *launch.weights, *launch.places, normaliser.contiguous()]
    sizes = [*launch.sizes, *grad.stride()[:3]]

    along = launch.empty(batch, heads, length)
    grad_query = launch.zeros(batch, heads, channels, length)
    if relation_weight is None:
        grad_weight = launch.zeros(0)
        targets = [grad_weight, grad_weight]
    elif launch.relation == OFFSETS:
        grad_weight = launch.zeros(*relation_weight.shape)
        targets = list(grad_weight)
    else:
        grad_weight = launch.empty(2, batch, heads, launch.query_blocks, relation_weight.shape[-1])
        targets = list(grad_weight)
    query_gradient[(launch.both * launch.query_blocks,)](
        *before,
        output,
        grad,
        along,
        grad_query,
        *targets,
        *sizes,
        *output.stride()[:3],
        **launch.query_tiles,
        **launch.constants,
    )
    if relation_weight is not None and launch.relation != OFFSETS:
        grad_weight = grad_weight.sum((1, 3))

    part_length = launch.part_length()
    parts = math.ceil(length / part_length)
    grad_key = launch.zeros(parts, batch, heads, channels, launch.num_keys)
    grad_value = launch.empty(parts, *value.shape)
    key_gradient[(launch.both * parts * launch.key_blocks,)](
        *before,
        along,
        grad,
        grad_key,
        grad_value,
        *sizes,
        parts,
        part_length,
        **launch.key_tiles,
        **launch.constants,
    )
    return grad_query, grad_key.sum(0), grad_value.sum(0), grad_weight, along


@sampled_attention_backward.register_fake
def _(
    grad: Tensor, output: Tensor, normaliser: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def empty(like: Tensor) -> Tensor:
        return torch.empty_like(like, dtype=torch.float32, memory_format=torch.contiguous_format)

    weight = rest[1]
    found = (query, key, value, query.new_empty(0) if weight is None else weight, normaliser)
    return tuple(empty(like) for like in found)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.score, ctx.probability = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_normaliser: Tensor | None) -> tuple[Tensor | None, ...]:
    query, key, value, valid, leak, weight, query_places, key_places, output, normaliser = ctx.saved_tensors
    if grad is None:
        return (None,) * 10
    places = (weight, query_places, key_places)
    found = sampled_attention_backward(
        grad, output, normaliser, query, key, value, valid, *places, ctx.score, ctx.probability
    )
    grad_query, grad_key, grad_value, grad_weight, along = found
    grad_leak = None
    if leak is not None:
        shares = (leak[..., None] - normaliser).exp() if ctx.probability == "softmax" else 1 / normaliser
        grad_leak = -(along * shares).sum(-1)
    return (
        grad_query.to(query.dtype),
        grad_key.to(key.dtype),
        grad_value.to(value.dtype),
        None,
        grad_leak,
        None if weight is None else grad_weight.to(weight.dtype),
        *(None,) * 4,
    )


sampled_attention.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(getattr(torch.ops, NAMESPACE).sampled_attention)
def _flops(query: Any, key: Any, value: Any, *rest: Any, **kwargs: Any) -> int:
    """One maximum or product and one sum per pair and channel; shapes in place of tensors."""
    batch, heads, channels, length = query
    return 2 * batch * heads * length * value[2] * (channels + value[3])


@register_flop_formula(getattr(torch.ops, NAMESPACE).sampled_attention_backward)
def _backward_flops(
    grad: Any, output: Any, normaliser: Any, query: Any, key: Any, value: Any, *rest: Any, **kw: Any
) -> int:
    """Two recomputations of the scores, and two further passes each for scores and values."""
    batch, heads, channels, length = query
    return 2 * batch * heads * length * value[2] * (4 * channels + 3 * value[3])


def triton_attention(inputs: AttentionInputs) -> Tensor:
    """Attention over sampled tokens by Triton kernels; no double backward. Returns `(B, H, N, d)`.

    Gradients are the same in every run, but for those of the relation of sequences.

    Raises:
        ValueError: dropout, another dtype than float32, float16 or bfloat16, a relation that mixes pairs or needs
            gradients of its geometry, tensors where the kernels cannot run.
        RuntimeError: a relation of sequences to be trained under `torch.use_deterministic_algorithms(True)`.
    """
    query, key, value, leak_logits, valid, relation, score, probability, dropout = inputs
    _check(inputs)
    with maybe_autocast(query.device.type, enabled=False):
        # The kernels of maxout compute in float32: convert here, once for forward and backward.
        dtype = torch.float32 if score == "maxout" else value.dtype
        query, key = (x.mT.to(dtype).contiguous() for x in (query, key))
        leak = None if leak_logits is None else summed_leak(leak_logits, valid, probability, torch.float32)
        places: tuple[Tensor | None, ...] = (None, None, None) if relation is None else _places(relation)
        output, _ = sampled_attention(query, key, value, valid, leak, *places, score, probability)
        return output


def _check(inputs: AttentionInputs) -> None:
    if inputs.value.dtype not in DTYPES:
        raise ValueError(f"`sft_triton` computes in float32, float16 and bfloat16, not {inputs.value.dtype}: {REMEDY}")
    if inputs.dropout:
        raise ValueError(f"`sft_triton` has no dropout: set `attention_probs_dropout_prob` to 0, or {REMEDY}")
    if not inputs.query.is_cuda and not _is_interpreted():
        raise ValueError(
            f"`sft_triton` runs on GPUs, and the inputs are on {inputs.query.device}: move them, or {REMEDY}"
        )


def _places(relation: PreparedRelation) -> tuple[Tensor, Tensor, Tensor]:
    """The operands of the relation, checked: weights, and places of queries and of sampled tokens."""
    try:
        weight, query_places, key_places = relation.kernel_operands()
    except ValueError as error:
        raise ValueError(f"{error} Change that, or {REMEDY}") from error
    is_ordered = _relation_kind(weight, query_places) != OFFSETS
    if not is_ordered and torch.are_deterministic_algorithms_enabled() and weight.requires_grad:
        message = (
            "`sft_triton` adds gradients of the relation of sequences in no fixed order, which "
            f"`torch.use_deterministic_algorithms(True)` forbids: {REMEDY}"
        )
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(message)
        warnings.warn(message, stacklevel=3)
    return weight, query_places, key_places
