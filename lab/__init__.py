"""The laboratory: benchmark sets, baselines, benchmarks, ablations, analyses and releases.

It is not part of the wheel. The scripts of a clone import it: recipes then know its data sets and baselines by name,
and model cards know its sections.
"""

from modeling_sft.publishing.sections import CARD_SECTIONS

from . import baselines, readers
from .analysis.card import AnalysisSection
from .releases.comparison import ComparisonSection

# A card shows its own results first, then the results of all runs, then the analysis.
CARD_SECTIONS |= {section.file_name: section for section in (ComparisonSection(), AnalysisSection())}

__all__ = ["baselines", "readers"]
