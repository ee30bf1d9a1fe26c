"""Tokens in blocks: what is computed token by token need not have its inner states in memory for all of them."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_blocks(function: Callable[[slice], Tensor], length: int, rows: int) -> Tensor:
    """Call a function on one block of tokens after the other, and join what it returns.

    Traced code has no blocks: their number would become part of the graph.

    Args:
        function: given a slice of the tokens, returns `(B, n, ...)` for those.
        length: number of tokens N.
        rows: tokens of one block, at least 1.

    Returns:
        `(B, N, ...)`.
    """
    if torch.compiler.is_compiling() or length <= rows:
        return function(slice(0, length))
    blocks = (function(slice(start, min(start + rows, length))) for start in range(0, length, rows))
    if torch.is_grad_enabled():
        return torch.cat(list(blocks), dim=1)
    # Written in place, blocks and result never exist twice.
    first = next(blocks)
    output = first.new_empty(first.shape[0], length, *first.shape[2:])
    output[:, :rows] = first
    del first
    for start, block in zip(range(rows, length, rows), blocks, strict=True):
        output[:, start : start + rows] = block
    return output
