"""Hashes of 64 bits in integer arithmetic that wraps around, which all devices, compilers and exporters share.

Source: docs/design.md, section 6. `mix` is the usual finaliser of multiplications and shifted exclusive ors; the hash
of runs is a polynomial, whose factor is odd and so has an inverse modulo 2^64.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Odd numbers without structure, as signed 64-bit integers.
_FACTORS = (-7046029254386353131, -4417276706812531889, -7723592293110705685)
POLYNOMIAL = -3750763034362895579
"""The factor of [`run_hashes`]; odd."""
_BYTES = (0, 8, 16, 24)


def _signed(number: int) -> int:
    """A number below 2^64 as the signed one with the same 64 bits."""
    return number - 2**64 * (number >= 2**63)


def mix(x: Tensor, seed: int = 0) -> Tensor:
    """Scatter long numbers over all 64 bits; one to one for a fixed seed."""
    x = (x + seed) * _FACTORS[0]
    x = (x ^ (x >> 32)) * _FACTORS[1]
    x = (x ^ (x >> 29)) * _FACTORS[2]
    return x ^ (x >> 32)


def buckets(hashes: Tensor, count: int) -> Tensor:
    """Rows of a table for hashes: from 0 to `count` - 1, a power of two."""
    # The highest bits, which all bits below reach; the shift keeps the sign.
    return (hashes * _FACTORS[1] >> 65 - count.bit_length()) + count // 2


def run_hashes(tokens: Tensor, starts: Tensor) -> Tensor:
    """Hash of the run of tokens from a start to each place, both included, in O(N).

    H(s, i) = sum over j from s to i of c_j P^(i - j) modulo 2^64: two prefix sums with P and its inverse give all of
    them, and neither padding nor the place in the row changes one.

    Args:
        tokens: `(B, N)` long, already scattered by [`mix`].
        starts: `(B, N, S)` long, the first places of S runs that end here; the next place stands for an empty run.

    Returns:
        `(B, N, S)` long.
    """
    length = tokens.shape[1]
    up, down = (_powers(factor, length, tokens.device) for factor in (POLYNOMIAL, pow(POLYNOMIAL, -1, 2**64)))
    sums = F.pad((tokens * down).cumsum(1), (1, 0))
    before = sums.gather(1, starts.flatten(1)).view_as(starts)
    return (sums[:, 1:, None] - before) * up[:, None]


def _powers(factor: int, count: int, device: torch.device) -> Tensor:
    """The powers of a factor from 0 to `count` - 1, below 2^32: `(count,)` long."""
    # One table for each byte of the exponents: exporters have no running product.
    tables = torch.tensor(
        [[_signed(pow(factor, digit << shift, 2**64)) for digit in range(256)] for shift in _BYTES], device=device
    )
    exponents = torch.arange(count, device=device)
    first, *others = (table[exponents >> shift & 255] for table, shift in zip(tables.unbind(), _BYTES, strict=True))
    for powers in others:
        first = first * powers
    return first


def with_rank(ids: Tensor, rank: Tensor) -> Tensor:
    """Ids of occurrences: of ids and of their ranks, as [`occurrences`] gives them."""
    return mix(ids + rank * POLYNOMIAL)


def last_place(flags: Tensor) -> Tensor:
    """The last place up to each, along dimension 1, whose flag is set; -1 for none.

    Args:
        flags: `(B, N, ...)` bool.

    Returns:
        `(B, N, ...)` long.
    """
    length = flags.shape[1]
    places = torch.arange(length, device=flags.device).view(1, -1, *[1] * (flags.dim() - 2)).expand_as(flags)
    # A slot for each set flag by its number, slot 0 for none, and one to throw the others away; exporters have no
    # running maximum.
    number = flags.long().cumsum(1)
    slots = number.new_full((flags.shape[0], length + 2, *flags.shape[2:]), -1)
    return slots.scatter(1, torch.where(flags, number, length + 1), places).gather(1, number)


def occurrences(ids: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The ids of each row in ascending order, and the how-manieth of its kind in the row each is.

    In this order the place in the row is lost, and so are the order of the tokens and padding.

    Args:
        ids: `(B, N, kinds)` long.
        counted: `(B, N, kinds)` bool.

    Returns:
        Sorted ids and their ranks from 1, `(B, N, kinds)` long each; the rank of what is not counted is 0.
    """
    # An id that is this number by chance, once in 2^64, is not counted.
    nothing = -(2**63)
    ids = ids.masked_fill(~counted, nothing).sort(dim=1).values
    places = torch.arange(ids.shape[1], device=ids.device)[None, :, None].expand_as(ids)
    # A gather in place of slices, whose lengths of N - 1 exporters take for constants.
    is_first = (places == 0) | (ids != ids.gather(1, (places - 1).clamp(min=0)))
    return ids, torch.where(ids == nothing, 0, places - last_place(is_first) + 1)
