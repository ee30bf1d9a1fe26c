"""What the processors of point clouds and graphs share: how they are saved and loaded, and misspelt arguments."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.feature_extraction_utils import FeatureExtractionMixin

from .checkpoint_files_sft import saved_at_once


class SFTProcessor(FeatureExtractionMixin):
    """A feature extractor that is its model's whole processor."""

    _auto_class = "AutoFeatureExtractor"

    def __init__(self, **kwargs: Any) -> None:
        self._refuse_near_misses(kwargs)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The content of preprocessor_config.json; names the class for AutoFeatureExtractor and AutoProcessor."""
        output = super().to_dict()
        output["processor_class"] = type(self).__name__
        auto_map = output.get("auto_map", {})
        if "AutoFeatureExtractor" in auto_map:
            auto_map["AutoProcessor"] = auto_map["AutoFeatureExtractor"]
        return output

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As in Transformers, but a processor that the folder holds stays whole if saving fails."""
        if push_to_hub or not Path(save_directory, "preprocessor_config.json").exists():
            return super().save_pretrained(save_directory, push_to_hub, **kwargs)
        with saved_at_once(save_directory) as staging:
            names = super().save_pretrained(staging, **kwargs)
        return [str(Path(save_directory, Path(name).name)) for name in names]

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in Transformers, but refuses a `from_pretrained` override whose name is close to an argument's."""
        cls._refuse_near_misses(key for key in kwargs if key not in feature_extractor_dict)
        return super().from_dict(feature_extractor_dict, **kwargs)

    @classmethod
    def _refuse_near_misses(cls, names: Iterable[str]) -> None:
        """Other names pass: Transformers hands on what it finds in saved files."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        arguments = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
        for name in names:
            close = difflib.get_close_matches(name, arguments, n=1, cutoff=0.75)
            if close:
                raise ValueError(f"{cls.__name__} has no argument {name!r}; did you mean {close[0]!r}?")


__all__ = ["SFTProcessor"]
