"""The laboratory: benchmark sets, baselines, benchmarks, ablations, analyses and releases.

It is not part of the wheel. The scripts of a clone import it, which makes its data sets and baselines known to recipes
by name, and its sections to model cards.
"""

from modeling_sft.publishing.sections import CARD_SECTIONS

from . import baselines, readers
from .analysis.card import AnalysisSection
from .releases.comparison import ComparisonSection

# Behind the results of a card come first those of all runs, then what was analyzed.
CARD_SECTIONS |= {section.file_name: section for section in (ComparisonSection(), AnalysisSection())}

__all__ = ["baselines", "readers"]
