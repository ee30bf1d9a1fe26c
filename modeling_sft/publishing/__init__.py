"""Publishing trained models on the Hub: checks, model card, upload."""

from .card import check_card, render_card
from .comparison import comparison_tables
from .example import check_example
from .publication import Publication, PublishingError, prepare, publish
from .reports import read_reports
from .validation import CheckedFolder, check_folder

__all__ = [
    "CheckedFolder",
    "Publication",
    "PublishingError",
    "check_card",
    "check_example",
    "check_folder",
    "comparison_tables",
    "prepare",
    "publish",
    "read_reports",
    "render_card",
]
