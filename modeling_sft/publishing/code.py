"""The code that is published with a model, which its folder need not hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..hub.processing import SavedWithCode
from ..hub.remote_code import write_code
from .files import LocalFile
from .validation import CheckedFolder


def code_files(checked: CheckedFolder) -> list[LocalFile]:
    """Generate the code of a folder's model and processor; a tokenizer needs none.

    Args:
        checked: the folder; nothing is written into it.
    """
    with tempfile.TemporaryDirectory() as folder:
        if checked.model_class.auto_class_name is not None:
            write_code(checked.model_class, folder)
        if issubclass(checked.processor_class, SavedWithCode):
            write_code(checked.processor_class, folder)
        return [LocalFile.read(path.read_bytes(), path.name) for path in sorted(Path(folder).iterdir())]
