"""Auto classes that Transformers does not have. They are open: other models can register with them."""

from collections import OrderedDict
from typing import Any

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES


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
    "AutoModelForPointCloudClassification",
    "AutoModelForPointCloudSegmentation",
    "AutoModelForSequencePairClassification",
]
