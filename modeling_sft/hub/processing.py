"""What processors share: how they are saved with their code, how they are loaded, and misspelt arguments."""

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers.feature_extraction_utils import FeatureExtractionMixin

from .checkpoint_files import saved_at_once
from .remote_code import class_reference, write_code


def prepared(kind: str, entries: Sequence[Any], prepare: Callable[[int, Any], Any]) -> list[Any]:
    """What `prepare` makes of each entry of a batch and its place; errors name the place, if there are several."""
    items = []
    for position, entry in enumerate(entries):
        try:
            items.append(prepare(position, entry))
        except ValueError as error:
            if len(entries) == 1:
                raise
            raise ValueError(f"{kind} {position} of the batch: {error}") from error
    return items


class SavedWithCode(FeatureExtractionMixin):
    """A feature extractor that is saved with its code, and all at once."""

    auto_class_names: ClassVar[tuple[str, ...]] = ("AutoFeatureExtractor",)
    """The Auto classes that load it."""

    def to_dict(self) -> dict[str, Any]:
        """The content of preprocessor_config.json; names the class for the Auto classes."""
        reference = class_reference(type(self))
        return super().to_dict() | {"auto_map": dict.fromkeys(self.auto_class_names, reference)}

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As in Transformers, with the code beside it; a processor that the folder holds stays whole if saving fails.

        Args:
            save_directory: the folder; made if it is missing.
            push_to_hub: upload it as well, as the method `push_to_hub` does.
            kwargs: arguments of `push_to_hub`; `repo_id` is the folder's name by default.
        """
        with saved_at_once(save_directory, "preprocessor_config.json") as staging:
            names = super().save_pretrained(staging)
            write_code(type(self), Path(staging))
        if push_to_hub:
            self.push_to_hub(**({"repo_id": Path(save_directory).name} | kwargs))
        return [str(Path(save_directory, Path(name).name)) for name in names]

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoFeatureExtractor") -> None:
        """Add an Auto class that shall load this class from a checkpoint; its code is saved in any case."""
        name = auto_class if isinstance(auto_class, str) else auto_class.__name__
        cls.auto_class_names = tuple(dict.fromkeys((*cls.auto_class_names, name)))


class SFTProcessor(SavedWithCode):
    """A feature extractor that is its model's whole processor."""

    auto_class_names = ("AutoFeatureExtractor", "AutoProcessor")

    def __init__(self, **kwargs: Any) -> None:
        self._refuse_near_misses(kwargs)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The content of preprocessor_config.json; names the class for AutoFeatureExtractor and AutoProcessor."""
        return super().to_dict() | {"processor_class": type(self).__name__}

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
