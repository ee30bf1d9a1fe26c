"""How much a compressed file of data may hold."""

import os
from pathlib import Path

LARGEST_FACTOR = 100
"""Numbers shrink less; what shrinks more was made to fill memory."""
SMALL_SIZE = 2**26
"""Bytes that are allowed in any case: a short array of equal numbers shrinks by much more."""


def check_unpacked_size(path: str | os.PathLike[str], num_bytes: int) -> None:
    """Refuse a file whose content is far larger than itself, before it is unpacked.

    Args:
        path: an existing file.
        num_bytes: size of all that is to be read from it.

    Raises:
        ValueError: it is larger than a small array, and more than 100 times as large as the file.
    """
    size = Path(path).stat().st_size
    if num_bytes > max(SMALL_SIZE, LARGEST_FACTOR * size):
        raise ValueError(
            f"its {size} bytes would unpack to {num_bytes}, more than {LARGEST_FACTOR} times as many; save it without "
            "compression"
        )
