"""What the Triton kernels compute of a tile of queries and keys. Imported with them only: see `triton_kernels_sft`."""

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("The attention backend `sft_triton` needs Triton: `pip install triton`.") from error

_IDENTITY_OFFSET = tl.constexpr(0.541324854612918)  # softplus of it is 1
# Squared distances below 16 times the rounding of their summands give no direction.
_ROUNDING = tl.constexpr(16 * 2.0**-23)


@triton.jit
def raw_scores(
    step, own, steps, owns, num_steps, num_owns, score_shift, score_factor,
    MAXOUT: tl.constexpr, CHANNELS: tl.constexpr, PADDED_CHANNELS: tl.constexpr, STEP: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """Scores before the relation, (STEP, OWN) in float32, of places `steps` and `owns` of two operands of channels.

    One operand are the queries and the other the keys, in any order: both scores are symmetric.
    """
    if MAXOUT:
        total = tl.zeros([STEP, OWN], tl.float32)
        for channel in range(CHANNELS):
            x = tl.load(step + channel * num_steps + steps[:, None], mask=(steps < num_steps)[:, None], other=0.0)
            y = tl.load(own + channel * num_owns + owns[None, :], mask=(owns < num_owns)[None, :], other=0.0)
            total += tl.maximum(x, y)
    else:
        x = channels_of(step, steps, num_steps, CHANNELS, PADDED_CHANNELS)
        y = channels_of(own, owns, num_owns, CHANNELS, PADDED_CHANNELS)
        total = tl.trans(product(tl.trans(y), x))
    return (total - score_shift) * score_factor


@triton.jit
def product(x, operand):
    """Matrix product in float32, of numbers in the type of the operand or of computed ones in float32.

    Computed numbers are weights before they are normalised, or gradients: float16, which ends at 65,504, does not hold
    them. So they are multiplied as tf32, which has the digits of float16 and the range of float32; bfloat16 has that
    range itself. float32 takes three products of tf32, which differ from those of float32 by about 4e-7.
    """
    if x.dtype == operand.dtype:
        return tl.dot(x, operand, input_precision="tf32x3")
    elif operand.dtype == tl.float16:
        return tl.dot(x, operand.to(tl.float32), input_precision="tf32")
    else:
        return tl.dot(x.to(operand.dtype), operand)


@triton.jit
def channels_of(operand, places, size, CHANNELS: tl.constexpr, PADDED_CHANNELS: tl.constexpr):
    """All channels of some queries or keys, (PADDED_CHANNELS, places)."""
    channels = tl.arange(0, PADDED_CHANNELS)[:, None]
    used = (channels < CHANNELS) & (places < size)[None, :]
    return tl.load(operand + channels * size + places[None, :], mask=used, other=0.0)


@triton.jit
def _coordinates(query_places, key_places, axis: tl.constexpr, rows, columns, length, num_keys):
    """Coordinates of queries and keys along an axis."""
    q = tl.load(query_places + axis * length + rows, mask=rows < length, other=0.0)
    k = tl.load(key_places + axis * num_keys + columns, mask=columns < num_keys, other=0.0)
    return q, k


@triton.jit
def pair_features(query_places, key_places, rows, columns, length, num_keys, NORMALS: tl.constexpr):
    """Phi of points: 1, squared distance, n_i . n_j, n_i . u, n_j . u; the last three are 0 without normals.

    Rows and columns extend along different axes of a tile; which axis is whose does not matter.
    """
    is_point = tl.load(key_places + (6 if NORMALS else 3) * num_keys + columns, mask=columns < num_keys, other=0.0)
    qx, kx = _coordinates(query_places, key_places, 0, rows, columns, length, num_keys)
    qy, ky = _coordinates(query_places, key_places, 1, rows, columns, length, num_keys)
    qz, kz = _coordinates(query_places, key_places, 2, rows, columns, length, num_keys)
    x, y, z = kx - qx, ky - qy, kz - qz
    squared = (x * x + y * y + z * z) * is_point
    if NORMALS:
        rounding = _ROUNDING * ((qx * qx + qy * qy + qz * qz) + (kx * kx + ky * ky + kz * kz))
        inverse = tl.where(squared > rounding, 1.0 / tl.sqrt(tl.maximum(squared, 1e-24)), 0.0)
        qx, kx = _coordinates(query_places, key_places, 3, rows, columns, length, num_keys)
        qy, ky = _coordinates(query_places, key_places, 4, rows, columns, length, num_keys)
        qz, kz = _coordinates(query_places, key_places, 5, rows, columns, length, num_keys)
        aligned = qx * kx + qy * ky + qz * kz
        return is_point, squared, aligned, (qx * x + qy * y + qz * z) * inverse, (kx * x + ky * y + kz * z) * inverse
    else:
        return is_point, squared, is_point, is_point, is_point


@triton.jit
def _weighted(weight, features, NORMALS: tl.constexpr):
    """Sum of the features with one head's weights."""
    total = tl.load(weight) * features[0] + tl.load(weight + 1) * features[1]
    if NORMALS:
        total += tl.load(weight + 2) * features[2]
        total += tl.load(weight + 3) * features[3] + tl.load(weight + 4) * features[4]
    return total


@triton.jit
def offset_entries(query_places, key_places, rows, columns, length, num_keys, table_size):
    """Where the offsets from keys to queries stand in the tables: the last entry for extra tokens."""
    q = tl.load(query_places + rows, mask=rows < length, other=0)
    k = tl.load(key_places + columns, mask=columns < num_keys, other=0)
    return tl.minimum(q - k + (table_size - 2) // 2, table_size - 1)


@triton.jit
def effect(
    scale_weight, bias_weight, query_places, key_places, rows, columns, length, num_keys, table_size,
    RELATION: tl.constexpr,
):  # fmt: skip
    """Factor of the scores before its softplus, and summand; rows and columns as in [`pair_features`]."""
    if RELATION == 3:
        entries = offset_entries(query_places, key_places, rows, columns, length, num_keys, table_size)
        used = (rows < length) & (columns < num_keys)
        logits = tl.load(scale_weight + entries, mask=used, other=0.0)
        return logits, tl.load(bias_weight + entries, mask=used, other=0.0)
    else:
        features = pair_features(query_places, key_places, rows, columns, length, num_keys, RELATION == 2)
        logits = _weighted(scale_weight, features, RELATION == 2) + _IDENTITY_OFFSET
        return logits, _weighted(bias_weight, features, RELATION == 2)


@triton.jit
def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def sigmoid(x):
    """The derivative of softplus."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@triton.jit
def gradient_of_scores(scores, grad_weights, normaliser, along, used, SOFTMAX: tl.constexpr):
    """Attention weights, and the gradient of the scores from that of the weights; rows' numbers extend along them."""
    if SOFTMAX:
        weights = tl.where(used, tl.exp(tl.minimum(scores - normaliser, 0.0)), 0.0)
        return weights, weights * (grad_weights - along)
    else:
        positive = used & (scores > 0)
        inverse = 1.0 / normaliser
        return tl.where(positive, scores * inverse, 0.0), tl.where(positive, (grad_weights - along) * inverse, 0.0)


@triton.jit
def larger(x, y):
    """Derivative of max(x, y) by x: 1, 1/2 at ties, or 0.

    The clamped sum is one instruction. It is exact unless x and y differ by less than 2^-101: float16 never does, and
    other types only where both are below 2^-77.
    """
    return tl.minimum(tl.maximum((x - y) * 2.0**100 + 0.5, 0.0), 1.0)


@triton.jit
def rows_of(matrix, rows, used, row_stride, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr):
    """Some rows of a matrix, (rows, PADDED_WIDTH)."""
    columns = tl.arange(0, PADDED_WIDTH)[None, :]
    return tl.load(
        matrix + rows[:, None].to(tl.int64) * row_stride + columns, mask=used[:, None] & (columns < WIDTH), other=0.0
    )
