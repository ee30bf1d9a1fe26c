"""Parts of a model card that come from a JSON file of their own, and that others than this package add."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .reports import read_json


class CardSection:
    """A part of the model card, behind its results. A subclass says what it shows; `CARD_SECTIONS` makes it known.

    Attributes:
        file_name: name of the JSON file in the folder; without one, the card has no such part. Where the file names
            `task` or `num_parameters`, they must be those of the model.
        fields: what the file must have.
        script: what writes it, for messages.
        has_results: whether its numbers may stand in the tables under a heading with "Results".
    """

    file_name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    script: ClassVar[str]
    has_results: ClassVar[bool] = False

    def read(self, path: Path) -> dict[str, Any]:
        """Read the file.

        Raises:
            ValueError: if it is damaged, or a field is missing.
        """
        return read_json(path, self.fields, self.script)

    def render(self, content: Mapping[str, Any], folder: Path) -> str:
        """Write the part in Markdown.

        Args:
            content: what [`read`] read.
            folder: the folder, which may have figures.
        """
        raise NotImplementedError

    def opening(self, content: Mapping[str, Any]) -> str:
        """What the first paragraph of the card must say already, in whole sentences; nothing by default."""
        return ""

    def check(self, text: str, content: Mapping[str, Any] | None) -> None:
        """Check a card, which may have been edited.

        Args:
            text: the card.
            content: what [`read`] read; None if the folder has no such file.

        Raises:
            ValueError: if a number in this part has no source.
        """

    def num_runs(self, content: Mapping[str, Any]) -> int:
        """How many runs with different seeds the part shows."""
        return 1


CARD_SECTIONS: dict[str, CardSection] = {}
"""The known parts by the names of their files, in the order of the card."""


def read_sections(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the files of all known parts that a folder has, by name.

    Raises:
        ValueError: if one is damaged, or a field is missing.
    """
    return {name: section.read(folder / name) for name, section in CARD_SECTIONS.items() if (folder / name).is_file()}
