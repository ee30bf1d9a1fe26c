"""The laboratory: benchmark sets, baselines, benchmarks, ablations, analyses and releases.

It is not part of the wheel. The scripts of a clone import it, which makes its data sets and baselines known to recipes
by name.
"""

from . import baselines, readers

__all__ = ["baselines", "readers"]
