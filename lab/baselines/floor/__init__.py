"""The floor: what a minute of counting, trees and linear models of scikit-learn reaches on the same rows."""

from .graphs import GraphCounts
from .molecules import Fingerprints
from .point_clouds import ShapeHistograms
from .sequences import TextCounts, ValueTrees

__all__ = ["Fingerprints", "GraphCounts", "ShapeHistograms", "TextCounts", "ValueTrees"]
