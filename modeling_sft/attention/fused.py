"""Fused attention to sampled tokens: tiles of queries that fit the cache, scores recomputed in backward.

Training memory is O(N (d_s + d)), because only one tile of the (N, K) scores exists at a time. The tile bodies run
plain or compiled, and compute the same as `eager_attention` (docs/design.md, section 3).
"""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from ..nn.functional import log_softplus
from .inputs import AttentionInputs
from .probabilities import PROBABILITY_EPS
from .relation import Effect, PreparedRelation
from .scores import MAXOUT_MEAN, MAXOUT_STD

# Elements of one tile of scores per thread: 512 KiB in float32, so that the tile and a temporary fit the L2 cache.
TILE_ELEMENTS = 2**17
# With dropout, tiles are made for this many threads: one thread loses nothing yet, and sixteen have enough to do.
THREADS_WITH_DROPOUT = 4
# A tile has at least this many queries: with fewer, matrix products are slow.
MIN_QUERIES = 16


class TileScore(NamedTuple):
    """A score of one tile; its operands are (x - shift) * slope(d_s), so that constants cost nothing per pair.

    Attributes:
        shift: subtracted from queries and keys.
        slope: the factor of both, as a function of the number of channels.
        forward: maps query `(b, H, n, d_s)` and transposed key `(b, H, d_s, K)` to a new tensor `(b, H, n, K)`.
        backward: maps gradient of the scores, query and key to the gradients of query and key, in their shapes.
    """

    shift: float
    slope: Callable[[int], float]
    forward: Callable[[Tensor, Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    def prepare(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Queries or keys `(..., d_s)` as operands."""
        return (x.to(dtype) - self.shift) * self.slope(x.shape[-1])


def _by_channel(query: Tensor, key: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(query[..., None].unbind(-2), key[..., None, :].unbind(-3), strict=True)


def _sum_of_larger(query: Tensor, key: Tensor) -> Tensor:
    """Sum over channels of max(q, k)."""
    if torch.compiler.is_compiling():
        return torch.maximum(query[..., None], key[..., None, :, :]).sum(-2)
    channels = _by_channel(query, key)
    total = torch.maximum(*next(channels))
    larger = torch.empty_like(total)
    for q, k in channels:
        total.add_(torch.maximum(q, k, out=larger))
    return total


def _signed_sums(grad: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of grad * sign(q - k) over keys `(b, H, n, d_s)` and over queries `(b, H, d_s, K)`."""
    if torch.compiler.is_compiling():
        # Comparisons give 1 + sign(q - k) and 1 - sign(q - k) as masks. Each sum has its own expression on purpose:
        # a shared one would be stored as a tensor of size N, K and d_s.
        q, k, g = query[..., None], key[..., None, :, :], grad[..., :, None, :]
        rows = (g * ((q > k).to(g.dtype) + (q >= k).to(g.dtype))).sum(-1) - grad.sum(-1)[..., None]
        columns = grad.sum(-2)[..., None, :] - (g * ((k > q).to(g.dtype) + (k >= q).to(g.dtype))).sum(-3)
        return rows, columns
    signed, over_keys, over_queries = torch.empty_like(grad), [], []
    for q, k in _by_channel(query, key):
        torch.sub(q, k, out=signed).sign_().mul_(grad)
        over_keys.append(signed.sum(-1))
        over_queries.append(signed.sum(-2))
    return torch.stack(over_keys, -1), torch.stack(over_queries, -2)


def _maxout_backward(grad: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    # d max(q, k) / dq = (1 + sign(q - k)) / 2, which halves the gradient at ties.
    rows, columns = _signed_sums(grad, query, key)
    return (grad.sum(-1)[..., None] + rows) / 2, (grad.sum(-2)[..., None, :] - columns) / 2


def _dot_backward(grad: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    return grad @ key.mT, query.mT @ grad


def _signed_min(query: Tensor, key: Tensor) -> Tensor:
    # |q + k| - |q - k| = 2 max(q, -k) - 2 max(q, k) + 2 k.
    difference = _sum_of_larger(query, -key).sub_(_sum_of_larger(query, key))
    return difference.add_(key.sum(-2)[..., None, :]).mul_(2)


def _signed_min_backward(grad: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    minus_rows, minus_columns = _signed_sums(grad, query, key)
    plus_rows, plus_columns = _signed_sums(grad, query, -key)
    return plus_rows - minus_rows, plus_columns + minus_columns


TILE_SCORES: dict[str, TileScore] = {
    "maxout": TileScore(MAXOUT_MEAN, lambda c: c**-0.5 / MAXOUT_STD, _sum_of_larger, _maxout_backward),
    "dot": TileScore(0.0, lambda c: c**-0.25, torch.matmul, _dot_backward),
    "signed_min": TileScore(0.0, lambda c: c**-0.5, _signed_min, _signed_min_backward),
}


class Operands(NamedTuple):
    """One tile's keys, all in the dtype of computation.

    Attributes:
        key: `(b, H, d_s, K)`, shifted and scaled as the score wants it.
        value: `(b, H, K, d)`.
        invalid: `(b, S, 1, K)` bool, `True` for unused slots; `None` if every slot is in use.
        leak: `(b, H, 1, 1)`, the summed leak or, for softmax, its logarithm; `None` without leak.
    """

    key: Tensor
    value: Tensor
    invalid: Tensor | None
    leak: Tensor | None


def _positive_part(scores: Tensor, invalid: Tensor | None, probability: str, shift: Tensor) -> Tensor:
    """Unnormalised weights of the scores, which may be overwritten."""
    if probability == "relu":
        positive = F.relu_(scores)
    elif probability == "softplus":
        positive = F.softplus(scores)
    else:
        positive = (scores - shift).exp_()
    return positive if invalid is None else positive.masked_fill_(invalid, 0.0)


def _forward_tile(
    query: Tensor, keys: Operands, relation: PreparedRelation | None, keep: Tensor | None, score: str, probability: str
) -> tuple[Tensor, Tensor]:
    """Outputs `(b, H, n, d)` and the normaliser of each row `(b, H, n, 1)`: its sum or, for softmax, its log-sum."""
    scores = TILE_SCORES[score].forward(query, keys.key)
    if relation is not None:
        scores = relation.effect().apply(scores)
    shift = scores
    if probability == "softmax":
        lowest = torch.finfo(scores.dtype).min / 2
        shift = (scores if keys.invalid is None else scores.masked_fill(keys.invalid, lowest)).amax(-1, keepdim=True)
        shift = shift if keys.leak is None else torch.maximum(shift, keys.leak)
    positive = _positive_part(scores, keys.invalid, probability, shift)
    total = positive.sum(-1, keepdim=True)
    if keys.leak is not None:
        total = total + ((keys.leak - shift).exp() if probability == "softmax" else keys.leak)
    if probability == "softmax":
        total = total.clamp(min=torch.finfo(total.dtype).tiny)
    else:
        total = total + PROBABILITY_EPS
    if keep is not None:
        positive = positive * keep
    output = (positive @ keys.value) / total
    return output, shift + total.log() if probability == "softmax" else total


def _backward_tile(
    grad: Tensor,
    normaliser: Tensor,
    query: Tensor,
    keys: Operands,
    effect: Effect | None,
    keep: Tensor | None,
    score: str,
    probability: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Effect | None]:
    """The gradients of query, key, value, leak and the relation's effect."""
    raw = TILE_SCORES[score].forward(query, keys.key)
    scores = raw if effect is None else effect.apply(raw)
    positive = _positive_part(scores, keys.invalid, probability, normaliser)
    if probability != "softmax":
        grad = grad / normaliser
    grad_positive = grad @ keys.value.mT
    kept = positive
    if keep is not None:
        grad_positive, kept = grad_positive * keep, positive * keep
    grad_value = kept.mT @ grad
    # Compute this from the weights: the output may have been rounded to half precision.
    along_output = (grad_positive * positive).sum(-1, keepdim=True)
    if probability != "softmax":
        along_output = along_output / normaliser
    grad_positive = grad_positive.sub_(along_output)
    if probability == "relu":
        grad_scores = torch.ops.aten.threshold_backward(grad_positive, positive, 0)
    elif probability == "softplus":
        # The derivative of softplus is 1 - exp(-softplus).
        grad_scores = grad_positive.mul_(positive.neg().expm1_().neg_())
    else:
        grad_scores = grad_positive.mul_(positive)
    grad_leak, grad_effect = None, None
    if keys.leak is not None:
        share = (keys.leak - normaliser).exp() if probability == "softmax" else 1.0
        grad_leak = -(along_output * share).sum(-2, keepdim=True)
    if effect is not None:
        grad_effect = Effect(grad_scores * raw, grad_scores)
        grad_scores = grad_scores * effect.scale
    grad_query, grad_key = TILE_SCORES[score].backward(grad_scores, query, keys.key)
    return grad_query, grad_key, grad_value, grad_leak, grad_effect


@functools.cache
def _compiled(function: Callable, *variant: Any) -> Callable:
    # Each variant gets its own code object, because the compiler gives up on a function that it compiles too often.
    own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    # Without fullgraph, a variant that is still compiled too often runs uncompiled, and PyTorch warns.
    return torch.compile(own, dynamic=True)


class Setting(NamedTuple):
    """The settings of an attention: its score, its probability, its dropout, and whether tile bodies are compiled."""

    score: str
    probability: str
    dropout: float
    compiled: bool

    def body(self, function: Callable, keys: "Operands", relation: PreparedRelation | None) -> Callable:
        """The tile body to call on these arguments, compiled if the setting says so."""
        if not self.compiled:
            return function
        return _compiled(function, self, keys.key.dtype, keys.invalid is None, keys.leak is None, relation is None)


def _tiling(shape: torch.Size, keys: int, device: torch.device, dropout: float) -> tuple[list[slice], list[slice]]:
    """Slices of rows and of queries `(B, H, N, d_s)`, whose tile of scores has `TILE_ELEMENTS` per thread or fewer."""
    batch, heads, length, _ = shape
    threads = 64
    if device.type == "cpu":
        # Dropout is drawn tile by tile, also when a checkpoint repeats the forward pass: there the tiles must not
        # follow the number of threads, which may have changed.
        threads = THREADS_WITH_DROPOUT if dropout else torch.get_num_threads()
    elements = TILE_ELEMENTS * threads
    queries = min(length, max(MIN_QUERIES, elements // (heads * keys)))
    rows = max(1, elements // (heads * queries * keys))
    return (
        [slice(start, start + rows) for start in range(0, batch, rows)],
        [slice(start, start + queries) for start in range(0, length, queries)],
    )


def _heads_inside(batch: int, heads: int, length: int, width: int, like: Tensor) -> Tensor:
    """An empty `(B, H, N, c)` tensor laid out as `(B, N, H, c)`, which the projections around the attention need."""
    return like.new_empty(batch, length, heads, width).transpose(1, 2)


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        setting: Setting,
        relation_type: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        valid: Tensor,
        leak: Tensor | None,
        *relation_tensors: Tensor | None,
    ) -> Tensor:
        batch, heads, length, _ = query.shape
        dtype = torch.promote_types(query.dtype, torch.float32)
        score = TILE_SCORES[setting.score]
        operands = _operands(score, key, value, valid, leak, dtype)
        relation = relation_type(*relation_tensors) if relation_tensors else None
        output = _heads_inside(batch, heads, length, value.shape[-1], value)
        normaliser = query.new_empty(batch, heads, length, 1, dtype=dtype)
        random_state = _random_state(query.device) if setting.dropout else None
        body = setting.body(_forward_tile, operands, relation)
        row_slices, query_slices = ctx.tiles = _tiling(query.shape, key.shape[2], query.device, setting.dropout)
        for rows in row_slices:
            prepared, keys = score.prepare(query[rows], dtype), _rows(operands, rows)
            relation_part = None if relation is None else relation.rows(rows)
            for queries in query_slices:
                tile = prepared[:, :, queries].contiguous()
                part = None if relation_part is None else relation_part.queries(queries)
                if setting.compiled and part is not None:
                    part = part.with_fixed_sizes()
                keep = _dropout_mask(tile, key, setting.dropout)
                found = body(tile, keys, part, keep, setting.score, setting.probability)
                output[rows, :, queries], normaliser[rows, :, queries] = found
        ctx.setting, ctx.relation_type, ctx.random_state = setting, relation_type, random_state
        ctx.save_for_backward(query, key, value, valid, leak, normaliser, *relation_tensors)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        query, key, value, valid, leak, normaliser, *relation_tensors = ctx.saved_tensors
        setting = ctx.setting
        batch, heads, length, channels = query.shape
        dtype = normaliser.dtype
        score = TILE_SCORES[setting.score]
        operands = _operands(score, key, value, valid, leak, dtype)
        relation = _RelationGradient(ctx.relation_type, relation_tensors, ctx.needs_input_grad[7:])
        grad_query = _heads_inside(batch, heads, length, channels, query)
        grad_key, grad_value = torch.zeros_like(operands.key), torch.zeros_like(operands.value)
        grad_leak = None if operands.leak is None else torch.zeros_like(operands.leak)
        row_slices, query_slices = ctx.tiles
        body = setting.body(_backward_tile, operands, relation.relation)
        with _replayed(ctx.random_state, query.device), maybe_autocast(query.device.type, enabled=False):
            for rows in row_slices:
                prepared, keys = score.prepare(query[rows], dtype), _rows(operands, rows)
                relation.start(rows)
                for queries in query_slices:
                    tile = prepared[:, :, queries].contiguous()
                    keep = _dropout_mask(tile, key, setting.dropout)
                    by_tile = body(
                        grad[rows, :, queries].to(dtype),
                        normaliser[rows, :, queries],
                        tile,
                        keys,
                        relation.effect(queries),
                        keep,
                        setting.score,
                        setting.probability,
                    )
                    grad_query[rows, :, queries] = by_tile[0]
                    grad_key[rows] += by_tile[1]
                    grad_value[rows] += by_tile[2]
                    if grad_leak is not None:
                        grad_leak[rows] += by_tile[3]
                    relation.accumulate(queries, by_tile[4])
        grad_query.mul_(score.slope(channels))
        grad_key = grad_key.mT * score.slope(channels)
        grads = (grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None)
        return None, None, *grads, None if grad_leak is None else grad_leak[..., 0, 0], *relation.gradients


class _RelationGradient:
    """Recomputes a relation tile by tile and collects the gradients of its tensors."""

    def __init__(self, relation_type: Any, tensors: list[Tensor | None], needs_grad: tuple[bool, ...]):
        self.needs_grad = needs_grad
        self.gradients: list[Tensor | None] = [
            torch.zeros_like(tensor) if tensor is not None and needed else None
            for tensor, needed in zip(tensors, needs_grad, strict=True)
        ]
        self.relation = relation_type(*tensors) if tensors else None
        # A relation of the gradients slices them like their tensors; a tensor without a gradient fills its own place.
        targets = [
            tensor if gradient is None else gradient for tensor, gradient in zip(tensors, self.gradients, strict=True)
        ]
        self.target = relation_type(*targets) if tensors else None

    def start(self, rows: slice) -> None:
        """Move to other rows of the batch."""
        if self.relation is not None:
            self.part, self.target_part = self.relation.rows(rows), self.target.rows(rows)

    def effect(self, queries: slice) -> Effect | None:
        """The scale and bias of one tile."""
        if self.relation is None:
            return None
        effect, self.gradient = self.part.queries(queries).with_gradient(self.needs_grad)
        return effect

    def accumulate(self, queries: slice, grad_effect: Effect | None) -> None:
        """Add the gradients of the tile from the last call of `effect`."""
        if grad_effect is None or not any(self.needs_grad):
            return
        self.gradient(*grad_effect, self.target_part.queries(queries))


def _operands(
    score: TileScore, key: Tensor, value: Tensor, valid: Tensor, leak: Tensor | None, dtype: torch.dtype
) -> Operands:
    # Skip the mask if all slots are in use. Do so on the CPU only: on accelerators the check would have to wait.
    all_valid = valid.device.type == "cpu" and bool(valid.all())
    # Detach the tensors: otherwise the compiler makes separate bodies for tensors with and without gradients.
    return Operands(
        score.prepare(key, dtype).mT.contiguous(),
        value.detach().to(dtype).contiguous(),
        None if all_valid else ~valid[:, :, None],
        None if leak is None else leak.detach()[..., None, None],
    )


def _rows(operands: Operands, rows: slice) -> Operands:
    key, value, invalid, leak = operands
    invalid, leak = (None if tensor is None else tensor[rows] for tensor in (invalid, leak))
    return Operands(key[rows], value[rows], invalid, leak)


def _dropout_mask(tile: Tensor, key: Tensor, rate: float) -> Tensor | None:
    if not rate:
        return None
    return F.dropout(tile.new_ones(*tile.shape[:-1], key.shape[2]), rate)


def _random_state(device: torch.device) -> Tensor:
    return torch.get_rng_state() if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)


@contextmanager
def _replayed(state: Tensor | None, device: torch.device) -> Iterator[None]:
    """A context that repeats the random numbers of the forward pass and then restores the generator."""
    if state is None:
        yield
        return
    on_cpu = device.type == "cpu"
    with torch.random.fork_rng(devices=[] if on_cpu else [device], device_type="cuda" if on_cpu else device.type):
        if on_cpu:
            torch.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state, device)
        yield


def summed_leak(leak_logits: Tensor, valid: Tensor, probability: str, dtype: torch.dtype) -> Tensor:
    """Sum of softplus(c) over the slots in use `(B, H)`, or its logarithm for softmax."""
    logits = leak_logits.to(dtype).masked_fill(~valid, 0.0)
    if probability == "softmax":
        return log_softplus(logits).masked_fill(~valid, torch.finfo(dtype).min / 2).logsumexp(-1)
    return F.softplus(logits).masked_fill(~valid, 0.0).sum(-1)


def fused_attention(inputs: AttentionInputs, compiled: bool = False) -> Tensor:
    """Attention over sampled tokens in tiles, recomputed in backward, `(B, H, N, d)`; it has no second derivative."""
    query, key, value, leak_logits, valid, relation, score, probability, dropout = inputs
    setting = Setting(score, probability, dropout, compiled)
    with maybe_autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        leak = None if leak_logits is None else summed_leak(leak_logits, valid, probability, dtype)
        tensors: Any = () if relation is None else relation
        return _FusedAttention.apply(setting, type(relation), query, key, value, valid, leak, *tensors)


def compiled_attention(inputs: AttentionInputs) -> Tensor:
    """[`fused_attention`] with tile bodies compiled by `torch.compile` at their first use."""
    return fused_attention(inputs, compiled=True)
