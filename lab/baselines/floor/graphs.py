"""Counts of Weisfeiler-Lehman's colours in graphs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.values import require_integer
from modeling_sft.training.estimators import Estimator, Scores, TrainingData

from .heads import SVM_STRENGTHS, fit_scores


@dataclass(frozen=True)
class GraphCountsConfig:
    """Settings of [`GraphCounts`].

    Args:
        num_rounds: rounds of refinement, each of which looks one edge further.
        num_bins: entries of the vector of counts; colours are hashed into it.
    """

    num_rounds: int = 3
    num_bins: int = 4096

    def __post_init__(self) -> None:
        require_integer("`model.num_rounds`", self.num_rounds, 1)
        require_integer("`model.num_bins`", self.num_bins, 1)


class GraphCounts(Estimator):
    """Hashed counts of the colours of Weisfeiler and Lehman (JMLR 12, 2539-2561), under a forest or a linear machine.

    A node's first colour are its categories, its degree where the rows have none, and edges are refined by their
    categories; continuous features are left out. Validation chooses between a random forest and, for classes, a linear
    support vector machine on normalised counts, or for other targets boosted trees.
    """

    config_class = GraphCountsConfig
    target: ClassVar[str] = "y"

    def choices(self) -> Sequence[dict[str, Any]]:
        if self.recipe.task == "graph-classification":
            return [{"method": "forest"}, *({"method": "svm", "strength": strength} for strength in SVM_STRENGTHS)]
        return [{"method": "forest"}, {"method": "boosting"}]

    def features(self, rows: Any) -> NDArray[np.float32]:
        """Counts `(n, num_bins)` float32."""
        feature_extraction = import_optional("sklearn.feature_extraction", "graphs")
        hasher = feature_extraction.FeatureHasher(
            self.settings.num_bins, input_type="string", alternate_sign=False, dtype=np.float32
        )
        return hasher.transform(self._colours(row) for row in rows).toarray()

    def fit(self, choice: Mapping[str, Any], data: TrainingData) -> Scores:
        return fit_scores(task=self.recipe.task, data=data, seed=self.recipe.seed, **choice)

    def _colours(self, row: Mapping[str, Any]) -> Iterator[str]:
        """The colours of all nodes in all rounds."""
        networkx = import_optional("networkx", "graphs")
        graph = networkx.Graph()
        nodes, edges = np.asarray(row.get("node_feat", ())), np.asarray(row["edge_index"])
        kinds = np.asarray(row.get("edge_attr", ()))
        has_kinds, has_colours = kinds.dtype.kind in "iu", nodes.dtype.kind in "iu"
        written = [str(tuple(kind)) for kind in kinds.tolist()] if has_kinds else [""] * edges.shape[1]
        graph.add_nodes_from(range(int(row["num_nodes"])))
        graph.add_edges_from((a, b, {"kind": kind}) for (a, b), kind in zip(edges.T.tolist(), written))
        for node, degree in graph.degree():
            graph.nodes[node]["colour"] = str(tuple(nodes[node].tolist()) if has_colours else degree)
        colours = networkx.weisfeiler_lehman_subgraph_hashes(
            graph,
            node_attr="colour",
            edge_attr="kind" if has_kinds else None,
            iterations=self.settings.num_rounds,
            include_initial_labels=True,
        )
        for found in colours.values():
            yield from (f"{number}:{colour}" for number, colour in enumerate(found))
