"""Analysis of trained models: number of sampled tokens, robustness, calibration, throughput, failures."""

from modeling_sft.publishing.analysis_tables import format_analysis

from .report import SECTIONS, analyze

__all__ = ["SECTIONS", "analyze", "format_analysis"]
