"""Auto classes that Transformers does not have. They are open: other models can register with them."""

from collections import OrderedDict
from typing import Any

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES


def _auto_class(name: str, purpose: str) -> Any:
    """An Auto class of a name, for models of a purpose, with a mapping of its own."""
    about = f"""Loads any registered model that {purpose}, by its configuration.

    Example:

    ```python
    >>> from modeling_sft import {name}

    >>> model = {name}.from_pretrained("path/to/checkpoint")
    ```
    """
    mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())
    return type(name, (_BaseAutoModelClass,), {"__doc__": about, "__module__": __name__, "_model_mapping": mapping})


AutoModelForGraphClassification = _auto_class(
    "AutoModelForGraphClassification", "classifies graphs, or regresses on them"
)
AutoModelForLinkPrediction = _auto_class("AutoModelForLinkPrediction", "predicts links between nodes")
AutoModelForNodeClassification = _auto_class("AutoModelForNodeClassification", "labels the nodes of graphs")
AutoModelForPointCloudClassification = _auto_class("AutoModelForPointCloudClassification", "classifies point clouds")
AutoModelForPointCloudSegmentation = _auto_class(
    "AutoModelForPointCloudSegmentation", "labels the points of point clouds"
)
AutoModelForSequencePairClassification = _auto_class(
    "AutoModelForSequencePairClassification", "classifies pairs of separately encoded sequences"
)
