"""What processors share: how they are saved with their code, how they are loaded, and unknown arguments."""

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers.feature_extraction_utils import FeatureExtractionMixin

from .arguments import constructor_arguments, refuse_unknown_arguments, unknown_argument
from .checkpoint_files import saved_at_once
from .remote_code import class_reference, write_code

# What `to_dict` says of the class, so that a processor can be made of it.
SAVED_FIELDS = ("feature_extractor_type", "processor_class", "auto_map")
# What Transformers reads, or leaves behind, of the arguments of `from_pretrained`.
LOADING_ARGUMENTS = (
    *("cache_dir", "force_download", "proxies", "subfolder", "token", "local_files_only", "revision"),
    *("trust_remote_code", "code_revision", "use_fast"),
)
# From this similarity on, an unknown field of a file is a misspelt one, and not one of another release.
CLOSE = 0.75


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
    """A feature extractor that is saved with its code, and all at once; unknown arguments are refused.

    A saved file may hold more than its class knows, as files of other releases do: such fields become attributes.

    Raises:
        TypeError: an unknown argument, of the constructor or of `from_pretrained`.
    """

    auto_class_names: ClassVar[tuple[str, ...]] = ("AutoFeatureExtractor",)
    """The Auto classes that load it."""
    inherited_arguments: ClassVar[tuple[str, ...]] = ()
    """What a base class takes out of its keywords."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refuse_unknown_arguments(type(self).__name__, kwargs, [*self._arguments(), *SAVED_FIELDS])
        super().__init__(*args, **kwargs)

    @classmethod
    def _arguments(cls) -> list[str]:
        return [*constructor_arguments(cls), *cls.inherited_arguments]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As in Transformers; arguments of the constructor replace what was saved.

        Raises:
            TypeError: an unknown argument.
            ValueError: a field of the file is out of its range, or its name is close to that of an argument.
            OSError: there is no such file.
        """
        if "_from_pipeline" in kwargs:
            # What `model_kwargs` says to the model, a pipeline says to every part.
            own = (*cls._arguments(), *LOADING_ARGUMENTS)
            kwargs = {name: value for name, value in kwargs.items() if name in own or name.startswith("_")}
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As `from_pretrained`, from the content of a file.

        With `return_unused_kwargs`, unknown arguments are returned.
        """
        returns_unused, known = kwargs.pop("return_unused_kwargs", False), cls._arguments()
        replaced = [name for name in (*known, *feature_extractor_dict) if name in kwargs]
        fields = feature_extractor_dict | {name: kwargs.pop(name) for name in dict.fromkeys(replaced)}
        if not returns_unused:
            given = [name for name in kwargs if not name.startswith("_")]
            refuse_unknown_arguments(f"{cls.__name__}.from_pretrained", given, [*known, *LOADING_ARGUMENTS])
        others = {name: fields.pop(name) for name in list(fields) if name not in known}
        for name in others:
            if difflib.get_close_matches(name, known, n=1, cutoff=CLOSE):
                raise ValueError(unknown_argument(cls.__name__, name, known))
        processor = cls(**fields)
        vars(processor).update({name: value for name, value in others.items() if name != "processor_class"})
        return (processor, kwargs) if returns_unused else processor

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
        with saved_at_once(save_directory) as staging:
            names = super().save_pretrained(staging)
            write_code(type(self), staging)
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

    def to_dict(self) -> dict[str, Any]:
        """The content of preprocessor_config.json; names the class for AutoFeatureExtractor and AutoProcessor."""
        return super().to_dict() | {"processor_class": type(self).__name__}
