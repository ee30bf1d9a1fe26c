"""Auto classes that Transformers does not have. They are open: other models can register with them."""

from collections import OrderedDict
from typing import Any

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES


class AutoModelForGraphClassification(_BaseAutoModelClass):
    """Loads any registered model that classifies graphs, or regresses on them, by its configuration.

    Example:

    ```python
    >>> from modeling_sft import AutoModelForGraphClassification

    >>> model = AutoModelForGraphClassification.from_pretrained("path/to/checkpoint")
    ```
    """

    _model_mapping: Any = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForLinkPrediction(_BaseAutoModelClass):
    """Loads any registered model that predicts links between nodes, by its configuration.

    Example:

    ```python
    >>> from modeling_sft import AutoModelForLinkPrediction

    >>> model = AutoModelForLinkPrediction.from_pretrained("path/to/checkpoint")
    ```
    """

    _model_mapping: Any = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForNodeClassification(_BaseAutoModelClass):
    """Loads any registered model that labels the nodes of graphs, by its configuration.

    Example:

    ```python
    >>> from modeling_sft import AutoModelForNodeClassification

    >>> model = AutoModelForNodeClassification.from_pretrained("path/to/checkpoint")
    ```
    """

    _model_mapping: Any = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForPointCloudClassification(_BaseAutoModelClass):
    """Loads any registered point-cloud classifier by its configuration.

    Example:

    ```python
    >>> from modeling_sft import AutoModelForPointCloudClassification

    >>> model = AutoModelForPointCloudClassification.from_pretrained("path/to/checkpoint")
    ```
    """

    _model_mapping: Any = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForPointCloudSegmentation(_BaseAutoModelClass):
    """Loads any registered model that labels the points of clouds, by its configuration.

    Example:

    ```python
    >>> from modeling_sft import AutoModelForPointCloudSegmentation

    >>> model = AutoModelForPointCloudSegmentation.from_pretrained("path/to/checkpoint")
    ```
    """

    _model_mapping: Any = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForSequencePairClassification(_BaseAutoModelClass):
    """Loads any registered model that classifies pairs of separately encoded sequences, by its configuration.

    Example:

    ```python
    >>> from modeling_sft import AutoModelForSequencePairClassification

    >>> model = AutoModelForSequencePairClassification.from_pretrained("path/to/checkpoint")
    ```
    """

    _model_mapping: Any = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


__all__ = [
    "AutoModelForGraphClassification",
    "AutoModelForLinkPrediction",
    "AutoModelForNodeClassification",
    "AutoModelForPointCloudClassification",
    "AutoModelForPointCloudSegmentation",
    "AutoModelForSequencePairClassification",
]
