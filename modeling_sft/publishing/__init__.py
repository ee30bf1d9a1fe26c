"""Publishing trained models on the Hub: checks, model card, upload."""

from .card import check_card, render_card
from .comparison import Goal, compare, comparison_tables, read_goals
from .example import check_example
from .publication import Publication, PublishingError, prepare, publish
from .release import refresh, release
from .reports import read_reports
from .results_page import render_results_page
from .validation import CheckedFolder, check_folder

__all__ = [
    "CheckedFolder",
    "Goal",
    "Publication",
    "PublishingError",
    "check_card",
    "check_example",
    "check_folder",
    "compare",
    "comparison_tables",
    "prepare",
    "publish",
    "read_goals",
    "read_reports",
    "refresh",
    "release",
    "render_card",
    "render_results_page",
]
