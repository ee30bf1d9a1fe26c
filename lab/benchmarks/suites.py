"""All suites by name."""

from __future__ import annotations

from .attention_suites import ATTENTION, LAYER
from .cases import BenchmarkSuite
from .kernels import KERNELS
from .large_graphs import LARGE_GRAPHS
from .peers_graphs import GRAPHS
from .peers_point_clouds import POINT_CLOUDS
from .peers_tokens import TOKENS
from .scenes import SCENES

SUITES: dict[str, BenchmarkSuite] = {
    suite.name: suite for suite in (TOKENS, POINT_CLOUDS, SCENES, GRAPHS, LARGE_GRAPHS, ATTENTION, LAYER, KERNELS)
}
