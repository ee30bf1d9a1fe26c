"""Import of the libraries that only some parts of the package need."""

import importlib
from types import ModuleType


def import_optional(name: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        name: module name, such as `"matplotlib.figure"`.
        extra: the package's extra that installs it, such as `"train"`.

    Raises:
        ImportError: it is not installed; the message names the extra to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'This needs `{name}`: pip install "modeling-sft[{extra}]"') from error
