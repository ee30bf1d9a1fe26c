"""Publishing trained models on the Hub: checks, model card, upload."""

from .card import check_card, render_card
from .publication import Publication, PublishingError, prepare, publish
from .reports import read_reports
from .sections import CARD_SECTIONS, CardSection
from .validation import CheckedFolder, check_folder

__all__ = [
    "CARD_SECTIONS",
    "CardSection",
    "CheckedFolder",
    "Publication",
    "PublishingError",
    "check_card",
    "check_folder",
    "prepare",
    "publish",
    "read_reports",
    "render_card",
]
