"""Seeds of the point-cloud processor and its independent streams of random numbers."""

from collections.abc import Sequence

import numpy as np

from ..hub.values import is_integer

Seed = int | Sequence[int]

SUBSAMPLE_STREAM, AUGMENTATION_STREAM, MESH_STREAM = 0, 1, 2


def seed_words(seed: Seed | None) -> tuple[int, ...]:
    """A seed as a tuple of integers; None is (0,).

    Raises:
        ValueError: if it is neither an integer of at least 0 nor a non-empty sequence of such integers.
    """
    words = (0,) if seed is None else tuple(seed) if isinstance(seed, (tuple, list)) else (seed,)
    if not words or not all(is_integer(word) and word >= 0 for word in words):
        raise ValueError(f"seed must be an integer of at least 0, a sequence of such integers, or None; got {seed!r}.")
    return tuple(int(word) for word in words)


def generator(seed: Sequence[int], stream: int) -> np.random.Generator:
    """The source of randomness for one use (`stream`) of a seed."""
    # A plain list of integers would do for neither: NumPy pads it with zeros, so that (1,) and (1, 0) coincide.
    return np.random.default_rng(np.random.SeedSequence((len(seed), *seed), spawn_key=(stream,)))
