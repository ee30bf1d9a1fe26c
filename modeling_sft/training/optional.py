"""Import of the libraries that only training needs."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_training_library(name: str) -> ModuleType:
    """Import a module of the `train` extra.

    Args:
        name (`str`): Module name, such as `"matplotlib.figure"`.

    Raises:
        ImportError: If it is not installed; the message names the extra to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'Training needs `{name}`: pip install "modeling-sft[train]"') from error
