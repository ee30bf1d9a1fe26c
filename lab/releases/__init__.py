"""Releases: goals, the median run of a recipe as a repository of the Hub, and the page of results."""

from .comparison import comparison_tables
from .example import check_example
from .goals import Goal, compare, read_goals
from .release import refresh, release
from .results_page import render_results_page

__all__ = [
    "Goal",
    "check_example",
    "compare",
    "comparison_tables",
    "read_goals",
    "refresh",
    "release",
    "render_results_page",
]
