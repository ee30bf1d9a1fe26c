"""Analysis of trained models: number of sampled tokens, robustness, calibration, throughput, failures."""

from .report import SECTIONS, analyze
from .tables import format_analysis

__all__ = ["SECTIONS", "analyze", "format_analysis"]
