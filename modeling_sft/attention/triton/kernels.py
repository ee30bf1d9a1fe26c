"""Triton kernels of the attention to sampled tokens. Imported on first use only: CPU users need no Triton.

A program owns a tile of queries (or, for gradients of keys and values, of keys) of one head of one row of the batch,
one for each thread, and steps through the tokens of the other kind. Tiles of scores are (tokens of the step, own
tokens): what is summed over a step lies within one thread. Nothing of size (N, K) is stored: scores and relation are
recomputed in backward, once for the gradient of the queries and once for those of keys and values, so that each
gradient has one writer. Programs are numbered along one axis of the grid, because the others end at 65,535.

Shapes here: `query (B, H, d_s, N)` and `key (B, H, d_s, K)`, in float32 for maxout, and `value (B, H, K, d)`, all
contiguous. `RELATION` is 0 for none, 1 for distances of points, 2 for distances and normals, 3 for offsets in
sequences.
"""

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("The attention backend `sft_triton` needs Triton: `pip install triton`.") from error

from .tiles import (
    channels_of,
    effect,
    gradient_of_scores,
    larger,
    offset_entries,
    pair_features,
    product,
    raw_scores,
    rows_of,
    sigmoid,
    softplus,
)

_PROBABILITY_EPS = tl.constexpr(1e-3)
_LOWEST = tl.constexpr(-1.7e38)
_TINY = tl.constexpr(1.2e-38)


@triton.jit
def forward_kernel(
    query, key, value, valid, leak,
    scale_weight, bias_weight, query_places, key_places,
    output, normaliser,
    length, num_keys, heads, samples, query_place_size, key_place_size, table_size,
    score_shift, score_factor, output_batch, output_row,
    MAXOUT: tl.constexpr, SOFTMAX: tl.constexpr, LEAK: tl.constexpr, RELATION: tl.constexpr,
    CHANNELS: tl.constexpr, PADDED_CHANNELS: tl.constexpr, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Outputs `(B, N, H, d)`, and what normalises each row `(B, H, N)`: its sum, for softmax its log-sum-exp.

    Grid: B H times blocks of queries.
    """
    blocks = tl.cdiv(length, QUERIES)
    which = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    sample = batch * samples + head % samples
    rows = tl.program_id(0) % blocks * QUERIES + tl.arange(0, QUERIES)
    query += which * CHANNELS * length
    key += which * CHANNELS * num_keys
    value += which * num_keys * WIDTH
    valid += sample * num_keys
    if RELATION > 0:
        scale_weight += head * table_size
        bias_weight += head * table_size
        query_places += batch * query_place_size
        key_places += sample * key_place_size

    accumulated = tl.zeros([QUERIES, PADDED_WIDTH], tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    highest = tl.full([QUERIES], _LOWEST, tl.float32)
    for start in range(0, num_keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        slots = tl.load(valid + columns, mask=columns < num_keys, other=0) != 0
        used = slots[:, None]
        scores = raw_scores(
            key, query, columns, rows, num_keys, length, score_shift, score_factor,
            MAXOUT, CHANNELS, PADDED_CHANNELS, KEYS, QUERIES,
        )  # fmt: skip
        if RELATION > 0:
            logits, bias = effect(
                scale_weight, bias_weight, query_places, key_places, rows[None, :], columns[:, None],
                length, num_keys, table_size, RELATION,
            )  # fmt: skip
            scores = softplus(logits) * scores + bias
        if SOFTMAX:
            scores = tl.where(used, scores, _LOWEST)
            previous = highest
            highest = tl.maximum(highest, tl.max(scores, 0))
            shrink = tl.exp(previous - highest)
            total *= shrink
            accumulated *= shrink[:, None]
            weights = tl.where(used, tl.exp(scores - highest[None, :]), 0.0)
        else:
            weights = tl.where(used, tl.maximum(scores, 0.0), 0.0)
        total += tl.sum(weights, 0)
        values = rows_of(value, columns, slots, WIDTH, WIDTH, PADDED_WIDTH)
        accumulated += product(tl.trans(weights), values)
    if SOFTMAX:
        if LEAK:
            extra = tl.load(leak + which)
            previous = highest
            highest = tl.maximum(highest, extra)
            shrink = tl.exp(previous - highest)
            total = total * shrink + tl.exp(extra - highest)
            accumulated *= shrink[:, None]
        total = tl.maximum(total, _TINY)
    else:
        if LEAK:
            total += tl.load(leak + which)
        total += _PROBABILITY_EPS

    used_rows = rows < length
    channels = tl.arange(0, PADDED_WIDTH)[None, :]
    place = output + batch * output_batch + head * WIDTH + rows[:, None].to(tl.int64) * output_row + channels
    result = accumulated / total[:, None]
    tl.store(place, result.to(output.dtype.element_ty), mask=used_rows[:, None] & (channels < WIDTH))
    if SOFTMAX:
        total = highest + tl.log(total)
    tl.store(normaliser + which * length + rows, total, mask=used_rows)


@triton.jit
def query_gradient_kernel(
    query, key, value, valid,
    scale_weight, bias_weight, query_places, key_places, normaliser,
    output, grad, along,
    grad_query, grad_scale_weight, grad_bias_weight,
    length, num_keys, heads, samples, query_place_size, key_place_size, table_size, score_shift, score_factor,
    grad_batch, grad_head, grad_row, output_batch, output_head, output_row,
    MAXOUT: tl.constexpr, SOFTMAX: tl.constexpr, RELATION: tl.constexpr,
    CHANNELS: tl.constexpr, PADDED_CHANNELS: tl.constexpr, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Gradients of the queries `(B, H, d_s, N)` in float32, which starts at 0, and of the relation.

    Also writes `along` `(B, H, N)`, each query's product of the output and its gradient. Gradients of the weights of
    point-pair features go to `(B H, blocks, R)`, to be summed; those of the tables of offsets are added to `(H, T)` in
    no fixed order. Grid: B H times blocks of queries.
    """
    blocks = tl.cdiv(length, QUERIES)
    which = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    sample = batch * samples + head % samples
    rows = tl.program_id(0) % blocks * QUERIES + tl.arange(0, QUERIES)
    used_rows = rows < length
    query += which * CHANNELS * length
    grad_query += which * CHANNELS * length
    key += which * CHANNELS * num_keys
    value += which * num_keys * WIDTH
    valid += sample * num_keys
    if RELATION > 0:
        scale_weight += head * table_size
        bias_weight += head * table_size
        query_places += batch * query_place_size
        key_places += sample * key_place_size
    row_normaliser = tl.load(normaliser + which * length + rows, mask=used_rows, other=1.0)
    row_grad = rows_of(grad + batch * grad_batch + head * grad_head, rows, used_rows, grad_row, WIDTH, PADDED_WIDTH)
    output += batch * output_batch + head * output_head
    row_output = rows_of(output, rows, used_rows, output_row, WIDTH, PADDED_WIDTH)
    row_along = tl.sum(row_grad.to(tl.float32) * row_output.to(tl.float32), 1)
    tl.store(along + which * length + rows, row_along, mask=used_rows)

    found = tl.zeros([QUERIES, PADDED_CHANNELS], tl.float32)
    s0 = tl.zeros([QUERIES], tl.float32)
    s1, s2, s3, s4, b0, b1, b2, b3, b4 = s0, s0, s0, s0, s0, s0, s0, s0, s0
    for start in range(0, num_keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        slots = tl.load(valid + columns, mask=columns < num_keys, other=0) != 0
        used = used_rows[None, :] & slots[:, None]
        # Ahead of the scores: the compiler then brings this product into their layout, and not them into its own.
        values = rows_of(value, columns, slots, WIDTH, WIDTH, PADDED_WIDTH)
        grad_weights = tl.trans(product(row_grad, tl.trans(values)))
        raw = raw_scores(
            key, query, columns, rows, num_keys, length, score_shift, score_factor,
            MAXOUT, CHANNELS, PADDED_CHANNELS, KEYS, QUERIES,
        )  # fmt: skip
        scores = raw
        if RELATION > 0:
            logits, bias = effect(
                scale_weight, bias_weight, query_places, key_places, rows[None, :], columns[:, None],
                length, num_keys, table_size, RELATION,
            )  # fmt: skip
            scale = softplus(logits)
            scores = scale * raw + bias
        _, grad_scores = gradient_of_scores(
            scores, grad_weights, row_normaliser[None, :], row_along[None, :], used, SOFTMAX
        )
        if RELATION > 0:
            grad_logits = grad_scores * raw * sigmoid(logits)
            if RELATION == 3:
                entries = offset_entries(
                    query_places, key_places, rows[None, :], columns[:, None], length, num_keys, table_size
                )
                tl.atomic_add(grad_scale_weight + head * table_size + entries, grad_logits, mask=used, sem="relaxed")
                tl.atomic_add(grad_bias_weight + head * table_size + entries, grad_scores, mask=used, sem="relaxed")
            else:
                phi = pair_features(
                    query_places, key_places, rows[None, :], columns[:, None], length, num_keys, RELATION == 2
                )
                s0 += tl.sum(grad_logits * phi[0], 0)
                s1 += tl.sum(grad_logits * phi[1], 0)
                b0 += tl.sum(grad_scores * phi[0], 0)
                b1 += tl.sum(grad_scores * phi[1], 0)
                if RELATION == 2:
                    s2 += tl.sum(grad_logits * phi[2], 0)
                    s3 += tl.sum(grad_logits * phi[3], 0)
                    s4 += tl.sum(grad_logits * phi[4], 0)
                    b2 += tl.sum(grad_scores * phi[2], 0)
                    b3 += tl.sum(grad_scores * phi[3], 0)
                    b4 += tl.sum(grad_scores * phi[4], 0)
            grad_scores *= scale
        if MAXOUT:
            for channel in range(CHANNELS):
                q = tl.load(query + channel * length + rows[None, :], mask=used_rows[None, :], other=0.0)
                k = tl.load(key + channel * num_keys + columns[:, None], mask=(columns < num_keys)[:, None], other=0.0)
                part = tl.sum(grad_scores * larger(q, k), 0) * score_factor
                # This keeps the sum out of registers, which cannot be indexed. No order of memory is needed, as no
                # other thread adds here.
                tl.atomic_add(grad_query + channel * length + rows, part, mask=used_rows, sem="relaxed")
        else:
            k = channels_of(key, columns, num_keys, CHANNELS, PADDED_CHANNELS)
            found += product(tl.trans(grad_scores), tl.trans(k))
    if not MAXOUT:
        channels = tl.arange(0, PADDED_CHANNELS)[None, :]
        place = grad_query + channels * length + rows[:, None]
        tl.store(place, found * score_factor, mask=used_rows[:, None] & (channels < CHANNELS))
    if (RELATION == 1) or (RELATION == 2):
        place = tl.program_id(0).to(tl.int64) * table_size
        tl.store(grad_scale_weight + place, tl.sum(s0, 0))
        tl.store(grad_scale_weight + place + 1, tl.sum(s1, 0))
        tl.store(grad_bias_weight + place, tl.sum(b0, 0))
        tl.store(grad_bias_weight + place + 1, tl.sum(b1, 0))
        if RELATION == 2:
            tl.store(grad_scale_weight + place + 2, tl.sum(s2, 0))
            tl.store(grad_scale_weight + place + 3, tl.sum(s3, 0))
            tl.store(grad_scale_weight + place + 4, tl.sum(s4, 0))
            tl.store(grad_bias_weight + place + 2, tl.sum(b2, 0))
            tl.store(grad_bias_weight + place + 3, tl.sum(b3, 0))
            tl.store(grad_bias_weight + place + 4, tl.sum(b4, 0))


@triton.jit
def key_gradient_kernel(
    query, key, value, valid,
    scale_weight, bias_weight, query_places, key_places, normaliser, along, grad,
    grad_key, grad_value,
    length, num_keys, heads, samples, query_place_size, key_place_size, table_size, score_shift, score_factor,
    grad_batch, grad_head, grad_row, parts, part_length,
    MAXOUT: tl.constexpr, SOFTMAX: tl.constexpr, RELATION: tl.constexpr,
    CHANNELS: tl.constexpr, PADDED_CHANNELS: tl.constexpr, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Gradients of keys `(parts, B, H, d_s, K)`, which starts at 0, and values `(parts, B, H, K, d)`, in float32.

    Each part comes from `part_length` queries; their sum is left to the caller, in a fixed order. Grid: B H times
    parts times blocks of keys.
    """
    blocks = tl.cdiv(num_keys, KEYS)
    part = tl.program_id(0) // blocks % parts
    which = (tl.program_id(0) // (blocks * parts)).to(tl.int64)
    batch, head = which // heads, which % heads
    sample = batch * samples + head % samples
    columns = tl.program_id(0) % blocks * KEYS + tl.arange(0, KEYS)
    slots = tl.load(valid + sample * num_keys + columns, mask=columns < num_keys, other=0) != 0
    place = part * (tl.num_programs(0) // (blocks * parts)) + which
    grad_key += place * CHANNELS * num_keys
    grad_value += place * num_keys * WIDTH
    query += which * CHANNELS * length
    key += which * CHANNELS * num_keys
    normaliser += which * length
    along += which * length
    grad += batch * grad_batch + head * grad_head
    if RELATION > 0:
        scale_weight += head * table_size
        bias_weight += head * table_size
        query_places += batch * query_place_size
        key_places += sample * key_place_size
    values = rows_of(value + which * num_keys * WIDTH, columns, slots, WIDTH, WIDTH, PADDED_WIDTH)

    found_value = tl.zeros([KEYS, PADDED_WIDTH], tl.float32)
    found_key = tl.zeros([KEYS, PADDED_CHANNELS], tl.float32)
    for start in range(part * part_length, tl.minimum((part + 1) * part_length, length), QUERIES):
        rows = start + tl.arange(0, QUERIES)
        used_rows = rows < length
        used = used_rows[:, None] & slots[None, :]
        # Ahead of the scores: the compiler then brings this product into their layout, and not them into its own.
        row_grad = rows_of(grad, rows, used_rows, grad_row, WIDTH, PADDED_WIDTH)
        grad_weights = tl.trans(product(values, tl.trans(row_grad)))
        scores = raw_scores(
            query, key, rows, columns, length, num_keys, score_shift, score_factor,
            MAXOUT, CHANNELS, PADDED_CHANNELS, QUERIES, KEYS,
        )  # fmt: skip
        if RELATION > 0:
            logits, bias = effect(
                scale_weight, bias_weight, query_places, key_places, rows[:, None], columns[None, :],
                length, num_keys, table_size, RELATION,
            )  # fmt: skip
            scale = softplus(logits)
            scores = scale * scores + bias
        row_normaliser = tl.load(normaliser + rows, mask=used_rows, other=1.0)
        row_along = tl.load(along + rows, mask=used_rows, other=0.0)
        weights, grad_scores = gradient_of_scores(
            scores, grad_weights, row_normaliser[:, None], row_along[:, None], used, SOFTMAX
        )
        found_value += product(tl.trans(weights), row_grad)
        if RELATION > 0:
            grad_scores *= scale
        if MAXOUT:
            for channel in range(CHANNELS):
                q = tl.load(query + channel * length + rows[:, None], mask=used_rows[:, None], other=0.0)
                k = tl.load(key + channel * num_keys + columns[None, :], mask=(columns < num_keys)[None, :], other=0.0)
                by_key = tl.sum(grad_scores * larger(k, q), 0) * score_factor
                # As for the queries: no other thread adds here.
                tl.atomic_add(grad_key + channel * num_keys + columns, by_key, mask=columns < num_keys, sem="relaxed")
        else:
            q = channels_of(query, rows, length, CHANNELS, PADDED_CHANNELS)
            found_key += product(tl.trans(grad_scores), tl.trans(q))
    used_columns = (columns < num_keys)[:, None]
    if not MAXOUT:
        channels = tl.arange(0, PADDED_CHANNELS)[None, :]
        place = grad_key + channels * num_keys + columns[:, None]
        tl.store(place, found_key * score_factor, mask=used_columns & (channels < CHANNELS))
    channels = tl.arange(0, PADDED_WIDTH)[None, :]
    place = grad_value + columns[:, None] * WIDTH + channels
    tl.store(place, found_value, mask=used_columns & (channels < WIDTH))
