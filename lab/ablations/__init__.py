"""Ablations: studies of many trainings, their statistics, tables and figures."""

from .figures import plot_ablation
from .report import format_ablation, read_results, render_ablations_page
from .run import ablate
from .study import Study

__all__ = ["Study", "ablate", "format_ablation", "plot_ablation", "read_results", "render_ablations_page"]
