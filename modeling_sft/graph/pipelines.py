"""Pipelines of graphs: SMILES, rows, PyTorch Geometric or networkx graphs in; classes, numbers or vectors out."""

import os
from pathlib import Path
from typing import Any

from ..hub.lines import SUFFIXES, read_entries
from ..hub.pipelines import ClassificationPipeline, FeatureExtractionPipeline, SFTPipeline, TokenClassificationPipeline


class GraphPipeline(SFTPipeline):
    """Base of the pipelines of graphs.

    An input is a graph as `SFTGraphProcessor` takes it: a SMILES, a row, a PyTorch Geometric `Data` or a networkx
    graph. Labels are not read.
    """

    input_name = "node_features"
    processor_name = "SFTGraphProcessor"

    def __call__(self, inputs: Any, column: str = "smiles", **kwargs: Any) -> Any:
        """Answer for one graph, for each of several, or for each molecule of a file.

        Args:
            inputs: a graph, or several in a list, a data set or a generator; or the path of a file of SMILES: `.smi`,
                `.txt`, `.csv` or `.tsv`, which counts as the list of its molecules.
            column: of the SMILES in a table.
            kwargs: `batch_size`, `num_workers`, and the arguments that the class lists.

        Returns:
            The answer of `postprocess`; a list of them for a list or a file, an iterator for a data set or
                a generator.

        Raises:
            ValueError: inputs that cannot be read, with their place in a list, or arguments that do not fit.
            OSError: an absent file.
            ImportError: SMILES without RDKit, and encodings without SciPy.
        """
        # No SMILES ends like the name of a file.
        if isinstance(inputs, (str, os.PathLike)) and Path(inputs).suffix.lower() in SUFFIXES:
            inputs = read_entries(inputs, column)
        return super().__call__(inputs, **kwargs)

    def _prepare(self, inputs: Any) -> dict[str, Any]:
        item = self.feature_extractor.item(inputs)
        return {name: value for name, value in item.items() if name not in ("labels", "node_pairs")}


class GraphClassificationPipeline(GraphPipeline, ClassificationPipeline):
    """Classifies graphs, or predicts numbers of them in the units of the training data.

    Example:
    ```python
    >>> from transformers import pipeline
    >>> import modeling_sft

    >>> predict = pipeline("graph-classification", model="runs/molecules")
    >>> predict(["CCO", "c1ccccc1"], batch_size=2)
    >>> predict("new_molecules.csv", column="smiles", batch_size=8)
    ```
    """

    task_name = "graph-classification"
    head_name = "ForGraphClassification"


class NodeClassificationPipeline(GraphPipeline, TokenClassificationPipeline):
    """Labels the nodes of graphs, in their order."""

    task_name = "node-classification"
    head_name = "ForNodeClassification"


class GraphFeatureExtractionPipeline(GraphPipeline, FeatureExtractionPipeline):
    """Embeds graphs; also by the backbone of a model with a head."""

    task_name = "graph-feature-extraction"
