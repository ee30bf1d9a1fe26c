"""Float64 reference of the SFT layer, written from the published formulas and sharing no code with the package.

Clear rather than fast: explicit loops over samples, heads and slots, differentiable with respect to the token states
and every parameter. Shapes use B samples, N tokens, E extra tokens, H heads, S = 1 or H samples, K slots, D channels.

Sources: arXiv 2408.05822 (Sampling Foundational Transformer), arXiv 2408.05391 (SAMSA).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

EPS = 1e-3
MAXOUT_MEAN = 1 / math.sqrt(math.pi)
MAXOUT_DEVIATION = math.sqrt(1 - 1 / math.pi)
UNIT_SCALE_LOGIT = math.log(math.e - 1)
SCORE_RESOLUTION = 2.0**-12
CONTENT_RESOLUTION = 2.0**-16

State = Mapping[str, Tensor]


class Geometry(NamedTuple):
    """Point coordinates (B, N, 3) and unit normals (B, N, 3) or None."""

    points: Tensor
    normals: Tensor | None = None


class Positions(NamedTuple):
    """Positions (B, N) of the tokens of sequences."""

    positions: Tensor


class Edges(NamedTuple):
    """Edges (B, 2, E) from source to target, which of them are real (B, E), and one-hot features (B, E, R) or None."""

    edge_index: Tensor
    edge_mask: Tensor
    features: Tensor | None = None


RelationInputs = Geometry | Positions | Edges


def softplus(z: Tensor) -> Tensor:
    return torch.logaddexp(z, torch.zeros_like(z))


def log_softplus(z: Tensor) -> Tensor:
    """log softplus(z), equal to z for z < -15 as the design defines it."""
    tail = z < -15
    return torch.where(tail, z, torch.log(softplus(torch.where(tail, torch.zeros_like(z), z))))


def score(name: str, q: Tensor, k: Tensor) -> Tensor:
    """Scores (N, K) of queries (N, d_s) and keys (K, d_s)."""
    root = math.sqrt(q.shape[-1])
    rows = []
    for query in q:
        if name == "maxout":
            terms = (torch.maximum(query, k) - MAXOUT_MEAN) / MAXOUT_DEVIATION
        elif name == "dot":
            terms = query * k
        elif name == "signed_min":
            terms = (query + k).abs() - (query - k).abs()
        else:
            raise KeyError(name)
        rows.append(terms.sum(-1) / root)
    return torch.stack(rows)


def relation_features_point_cloud(
    points_i: Tensor, normals_i: Tensor | None, points_j: Tensor, normals_j: Tensor | None
) -> Tensor:
    """phi (N, K, 5) = [1, d^2, n_i.n_j, n_i.u, n_j.u], or (N, K, 2) = [1, d^2] without normals."""
    difference = points_j[None] - points_i[:, None]
    squared = (difference**2).sum(-1)
    columns = [torch.ones_like(squared), squared]
    if normals_i is not None and normals_j is not None:
        coincide = squared == 0
        distance = torch.where(coincide, torch.ones_like(squared), squared).sqrt()
        unit = difference / distance[..., None]
        columns.append((normals_i[:, None] * normals_j[None]).sum(-1))
        columns.append((normals_i[:, None] * unit).sum(-1))
        columns.append((normals_j[None] * unit).sum(-1))
    return torch.stack(columns, -1)


def relation_of_tokens(points: Tensor, normals: Tensor | None, indices: Tensor) -> Tensor:
    """phi (N, K, R) of N points and the tokens at indices (K,); 0 for extra tokens (index >= N) and unused slots."""
    is_point = (indices >= 0) & (indices < points.shape[0])
    row = torch.where(is_point, indices, torch.zeros_like(indices))
    phi = relation_features_point_cloud(points, normals, points[row], None if normals is None else normals[row])
    return phi * is_point[None, :, None].to(phi.dtype)


def relation_features_sequence(offset: int) -> list[float]:
    """phi of one offset: 1, sign, log(1 + |o|), cosines and sines of the periods 4, 16, ..., 4^8."""
    angles = [2 * math.pi * offset / 4**power for power in range(1, 9)]
    sign = (offset > 0) - (offset < 0)
    return [1.0, float(sign), math.log1p(abs(offset)), *map(math.cos, angles), *map(math.sin, angles)]


def relation_of_sequence(positions: Tensor, indices: Tensor) -> Tensor:
    """phi (N, K, 19) of the queries at positions (N,) and the tokens at indices (K,); 0 where there is no token."""
    rows = []
    for query in positions.tolist():
        for index in indices.tolist():
            there = 0 <= index < len(positions)
            rows.append(relation_features_sequence(query - int(positions[index])) if there else [0.0] * 19)
    return torch.tensor(rows, dtype=torch.float64).view(len(positions), len(indices), 19)


def relation_of_graph(edges: Edges, row: int, length: int, indices: Tensor) -> Tensor:
    """phi (N, K, 1 + R) of all nodes and the nodes at indices (K,): sums of 1 and the features of edges from these."""
    given = edges.features
    width = 0 if given is None else given.shape[-1]
    cells: dict[tuple[int, int], Tensor] = {}
    for edge in torch.nonzero(edges.edge_mask[row])[:, 0].tolist():
        source, target = edges.edge_index[row, :, edge].tolist()
        for slot in torch.nonzero(indices == source)[:, 0].tolist():
            features = torch.ones(1, dtype=torch.float64)
            features = features if given is None else torch.cat([features, given[row, edge]])
            cells[target, slot] = cells[target, slot] + features if (target, slot) in cells else features
    nothing = torch.zeros(1 + width, dtype=torch.float64)
    rows = [cells.get((query, slot), nothing) for query in range(length) for slot in range(len(indices))]
    return torch.stack(rows).view(length, len(indices), 1 + width)


def message_passing(state: State, x: Tensor, edges: Edges) -> Tensor:
    """W2 gelu(W1 (h_i + sum of relu(h_j + e_ji) over the edges j -> i)) for nodes h (B, N, D).

    e is the mean of as many embeddings as edges have columns, times the root of their number.
    """
    rows = []
    for b in range(x.shape[0]):
        sums = list(x[b])
        for edge in torch.nonzero(edges.edge_mask[b])[:, 0].tolist():
            source, target = edges.edge_index[b, :, edge].tolist()
            message = x[b, source]
            if edges.features is not None:
                one_hot = edges.features[b, edge]
                columns = one_hot.sum()
                message = message + one_hot @ state["local_mixing.edges.embeddings.weight"] / columns.sqrt()
            sums[target] = sums[target] + torch.relu(message)
        rows.append(torch.stack(sums))
    inner = linear(state, "local_mixing.dense", torch.stack(rows))
    return linear(state, "local_mixing.out_proj", inner * (1 + torch.erf(inner / math.sqrt(2))) / 2)


def relation_of_row(relation_inputs: RelationInputs, row: int, length: int, indices: Tensor) -> Tensor:
    """phi (N, K, R) of one sample of the batch, whatever its modality."""
    if isinstance(relation_inputs, Edges):
        return relation_of_graph(relation_inputs, row, length, indices)
    if isinstance(relation_inputs, Positions):
        return relation_of_sequence(relation_inputs.positions[row], indices)
    normals = None if relation_inputs.normals is None else relation_inputs.normals[row]
    return relation_of_tokens(relation_inputs.points[row], normals, indices)


def convolution_mixing(state: State, x: Tensor, mask: Tensor) -> Tensor:
    """Each channel's sum over a window of tokens (B, N, D); an even window sees one token more behind than ahead."""
    weight, bias = state["local_mixing.conv.weight"][:, 0], state["local_mixing.conv.bias"]
    size, rows = weight.shape[1], []
    for b, n in itertools.product(range(x.shape[0]), range(x.shape[1])):
        total = bias
        for tap in range(size):
            other = n + tap - size // 2
            if 0 <= other < x.shape[1] and mask[b, other]:
                total = total + weight[:, tap] * x[b, other]
        rows.append(total)
    return torch.stack(rows).view_as(x)


def probabilities(name: str, e: Tensor, valid: Tensor, leak_logits: Tensor | None) -> Tensor:
    """p (N, K) of scores e (N, K), valid slots (K,) and leak logits (K,); zero in invalid slots."""
    slots = torch.nonzero(valid)[:, 0]
    p = torch.zeros_like(e)
    if len(slots) == 0:
        return p
    scores = e[:, slots]
    if name == "softmax":
        log_terms = scores
        if leak_logits is not None:
            log_leak = torch.logsumexp(log_softplus(leak_logits[slots]), 0)
            log_terms = torch.cat([scores, log_leak.expand(len(e), 1)], 1)
        rows = torch.exp(scores - torch.logsumexp(log_terms, 1, keepdim=True))
    elif name in ("relu", "softplus"):
        positive = torch.relu(scores) if name == "relu" else softplus(scores)
        leak = 0.0 if leak_logits is None else softplus(leak_logits[slots]).sum()
        rows = positive / (positive.sum(1, keepdim=True) + leak + EPS)
    else:
        raise KeyError(name)
    return p.index_copy(1, slots, rows)


def layer_norm_rows(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)


def sampler_logits(
    x: Tensor, weight: Tensor, bias: Tensor | None, importance_scale: float, eps: float = 1e-5
) -> Tensor:
    """Importance logits (..., N) of tokens (..., N, D) for one scorer row, weight (D,) and bias ()."""
    logits = (layer_norm_rows(x, eps) * weight).sum(-1)
    if bias is not None:
        logits = logits + bias
    return importance_scale * logits


def mixed_tokens(
    estimator: str,
    tokens: Tensor,
    indices: Tensor,
    partners: Tensor | None,
    s: Tensor,
    z: Tensor,
    tau: float,
    training: bool,
) -> tuple[Tensor, Tensor]:
    """Sampled tokens (K, D) and pair weights (K,) of one sample; unused slots are zero.

    tokens (N + E, D) include the extra tokens; indices and partners (K,) hold -1 where unused; s and z (N + E,) are
    the clean and the noisy logits. At inference only the gate acts.
    """
    sampled, weights = [], []
    for slot, t in enumerate(indices.tolist()):
        p = -1 if partners is None else int(partners[slot])
        one = torch.ones((), dtype=tokens.dtype)
        if t < 0:
            token, w = torch.zeros_like(tokens[0]), one
        elif estimator == "gate":
            token, w = tokens[t] * 2 * torch.sigmoid(s[t]), one
        elif not training or p < 0:
            token, w = tokens[t], one
        elif estimator == "soft":
            w = torch.sigmoid(log_softplus(z[t]) - log_softplus(z[p]))
            token = w * tokens[t] + (1 - w) * tokens[p]
        elif estimator == "straight_through":
            w = torch.sigmoid((z[t] - z[p]) / tau)
            mix = w * tokens[t] + (1 - w) * tokens[p]
            token = tokens[t].detach() + (mix - mix.detach())
        else:
            raise KeyError(estimator)
        sampled.append(token)
        weights.append(w)
    return torch.stack(sampled), torch.stack(weights)


def rounded_scores(s: np.ndarray) -> np.ndarray:
    """Selection scores as multiples of 2^-12."""
    return np.rint(np.asarray(s, np.float64) / SCORE_RESOLUTION) * SCORE_RESOLUTION


def selection_order(s: np.ndarray, mask: np.ndarray, content: np.ndarray | None = None) -> np.ndarray:
    """Valid positions by decreasing rounded score, then by decreasing rounded content, then by lower index."""
    content = np.zeros(len(s)) if content is None else content
    rounded, told_apart = rounded_scores(s), np.rint(np.asarray(content, np.float64) / CONTENT_RESOLUTION)
    key = {i: (-rounded[i], -told_apart[i], i) for i in np.flatnonzero(mask).tolist()}
    return np.array(sorted(key, key=key.__getitem__), dtype=np.int64)


def content(x: Tensor, eps: float) -> Tensor:
    """The projection of normalised states x (N, D) on a fixed direction, which orders tokens of equal scores."""
    width = x.shape[-1]
    direction = torch.tensor([math.cos(2 * math.pi * (c * c * 40503 % 65536) / 65536) for c in range(1, width + 1)])
    return layer_norm_rows(x, eps) @ direction.to(x.dtype) * math.sqrt(2 / width)


def topk_selection(s: np.ndarray, k: int, mask: np.ndarray, content: np.ndarray | None = None) -> np.ndarray:
    """Indices of the k_b best tokens of one row, best first."""
    return selection_order(s, mask, content)[:k]


def inclusion_probabilities(ordered: np.ndarray, noise: float, k: int) -> np.ndarray:
    """pi_i = 1 - exp(-exp(s_i / noise + u)) with sum pi = k for 0 < k < n."""
    scaled = ordered / noise

    def pi(u: float) -> np.ndarray:
        with np.errstate(over="ignore", under="ignore"):
            return -np.expm1(-np.exp(scaled + u))

    low = math.log(k / len(scaled)) - scaled.max()
    high = math.log(-math.log1p(-k / len(scaled))) - scaled.min()
    for _ in range(300):
        middle = (low + high) / 2
        if pi(middle).sum() < k:
            low = middle
        else:
            high = middle
    return pi((low + high) / 2)


def systematic_positions(
    s: np.ndarray, noise: float, k: int, mask: np.ndarray, content: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Chosen indices of one row in score order, and the distance of the running sum of pi to the nearest threshold.

    Where the distance is below the rounding error of another precision, that precision may choose a neighbour instead.
    """
    order = selection_order(s, mask, content)
    k = min(k, len(order))
    if k == len(order) or noise == 0:
        return order[:k], math.inf
    pi = inclusion_probabilities(rounded_scores(s)[order], noise, k)
    chosen, total, steps, margin = [], 0, 0, math.inf
    for position, value in zip(order, pi, strict=True):
        total += round(float(value) * 2**40)
        margin = min(margin, abs((total / 2**40) % 1 - 0.5))
        if (total + 2**39) >> 40 > steps:
            steps = (total + 2**39) >> 40
            chosen.append(position)
    return np.array(chosen, dtype=np.int64), margin


def systematic_selection(
    s: np.ndarray, noise: float, k: int, mask: np.ndarray, content: np.ndarray | None = None
) -> np.ndarray:
    """Indices of the min(k, n) tokens of one row where the running sum of pi crosses 1/2, 3/2, ..., in score order."""
    return systematic_positions(s, noise, k, mask, content)[0]


def norm(
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    mask: Tensor | None = None,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Layer, RMS or masked batch norm of x (B, N, D).

    Batch norm uses the statistics (mean, variance) if given, else those of the valid tokens.
    """
    if name == "layer":
        normalised = layer_norm_rows(x, eps)
    elif name == "rms":
        normalised = x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps)
    elif name == "batch":
        if statistics is None:
            real = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
            mean = real.mean(0)
            statistics = mean, ((real - mean) ** 2).mean(0)
        mean, variance = statistics
        normalised = (x - mean) / torch.sqrt(variance + eps)
    else:
        raise KeyError(name)
    normalised = normalised * weight
    return normalised if bias is None else normalised + bias


def linear(state: State, name: str, x: Tensor) -> Tensor:
    y = x @ state[f"{name}.weight"].T
    bias = state.get(f"{name}.bias")
    return y if bias is None else y + bias


def feed_forward(state: State, x: Tensor, hidden_act: str) -> Tensor:
    """Linear, activation, linear."""
    inner = linear(state, "feed_forward.up_proj", x)
    if hidden_act == "gelu":
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    elif hidden_act == "relu":
        inner = torch.relu(inner)
    elif hidden_act != "linear":
        raise KeyError(hidden_act)
    return linear(state, "feed_forward.down_proj", inner)


def tokens_and_logits(state: State, config: Any, x: Tensor, sample: int) -> tuple[Tensor, Tensor]:
    """Candidates (N + E, D) of one sample of one cloud, x (N, D), and their importance logits (N + E,)."""
    extra = state.get("attention.sampler.extra_tokens")
    tokens = x if extra is None else torch.cat([x, extra[sample]], 0)
    bias = state.get("attention.sampler.bias")
    logits = sampler_logits(
        tokens,
        state["attention.sampler.weight"][sample],
        None if bias is None else bias[sample],
        config.importance_scale,
        config.norm_eps,
    )
    return tokens, logits


def attention(
    state: State,
    config: Any,
    x: Tensor,
    relation_inputs: RelationInputs | None,
    sample: Any,
    training: bool,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, N, D) and probabilities (B, H, N, K) of sampled attention on its input x (B, N, D).

    sample has indices, valid and partners (B, S, K), S = 1 or H; noise (B, S, N + E) is what was added to the logits.
    """
    heads = config.num_attention_heads
    score_width, value_width = config.score_head_dim or config.hidden_size // heads, config.hidden_size // heads
    outputs, attentions = [], []
    for b in range(x.shape[0]):
        head_outputs, head_attentions = [], []
        queries = linear(state, "attention.q_proj", x[b])
        for h in range(heads):
            own = h if config.sampling_scope == "head" else 0
            indices, valid = sample.indices[b, own], sample.valid[b, own]
            partners = None if sample.partners is None else sample.partners[b, own]
            candidates, s = tokens_and_logits(state, config, x[b], own)
            z = s if noise is None else s + noise[b, own]
            tokens, w = mixed_tokens(
                config.sampling_estimator, candidates, indices, partners, s, z, config.sampling_temperature, training
            )
            rows = slice(h * score_width, (h + 1) * score_width)
            keys = linear(state, "attention.k_proj", tokens)[:, rows]
            values = linear(state, "attention.v_proj", tokens)[:, h * value_width : (h + 1) * value_width]
            e = score(config.attention_score, queries[:, rows], keys)
            if config.relation and relation_inputs is not None:
                phi = relation_of_row(relation_inputs, b, x.shape[1], indices)
                if config.sampling_estimator == "soft" and training and partners is not None:
                    partner_phi = relation_of_row(relation_inputs, b, x.shape[1], partners)
                    phi = w[None, :, None] * phi + (1 - w)[None, :, None] * partner_phi
                scale = phi @ state["attention.relation.scale_weight"][h, : phi.shape[-1]]
                shift = phi @ state["attention.relation.bias_weight"][h, : phi.shape[-1]]
                e = softplus(scale + UNIT_SCALE_LOGIT) * e + shift
            leak_logits = linear(state, "attention.c_proj", tokens)[:, h] if config.attention_leak else None
            p = probabilities(config.attention_probability, e, valid, leak_logits)
            head_attentions.append(p)
            head_outputs.append(p @ values)
        outputs.append(linear(state, "attention.o_proj", torch.cat(head_outputs, -1)))
        attentions.append(torch.stack(head_attentions))
    return torch.stack(outputs), torch.stack(attentions)


def layer(
    state: State,
    config: Any,
    x: Tensor,
    mask: Tensor,
    relation_inputs: RelationInputs | None,
    sample: Any,
    training: bool,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, N, D) and probabilities (B, H, N, K) of one layer without dropout.

    state holds the layer's parameters and batch-norm buffers by name; rows of padding in the output are meaningless.
    """

    def normalise(name: str, value: Tensor) -> Tensor:
        statistics = None
        if config.norm_type == "batch" and not training:
            statistics = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        return norm(config.norm_type, value, weight, bias, config.norm_eps, mask, statistics)

    pre = config.norm_position == "pre"
    scale = state["residual_scale"]
    if "local_mixing.conv.weight" in state:
        mixed = convolution_mixing(state, normalise("local_mixing_norm", x) if pre else x, mask)
        x = x + scale * mixed
        x = x if pre else normalise("local_mixing_norm", x)
    inputs = normalise("attention_norm", x) if pre else x
    attended, attentions = attention(state, config, inputs, relation_inputs, sample, training, noise)
    if "local_mixing.out_proj.weight" in state:
        assert isinstance(relation_inputs, Edges)
        attended = attended + message_passing(state, inputs, relation_inputs)
    x = x + scale * attended
    x = x if pre else normalise("attention_norm", x)
    inputs = normalise("feed_forward_norm", x) if pre else x
    x = x + scale * feed_forward(state, inputs, config.hidden_act)
    return (x if pre else normalise("feed_forward_norm", x)), attentions
