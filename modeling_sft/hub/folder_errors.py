"""What reading a broken or hostile folder raises, for the commands that say it in one line."""

import sys
from collections.abc import Callable

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

# Transformers checks few types of what it reads from JSON, hence the last line. RecursionError is a RuntimeError.
FOLDER_ERRORS = (
    *(ValueError, OSError, ImportError, RuntimeError, StrictDataclassError, SafetensorError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)
_UNPLANNED = (RecursionError, TypeError, AttributeError, LookupError, ArithmeticError)


def error_line(error: BaseException) -> str:
    """Say an error in one line; one that no check foresaw says nothing without its type."""
    text = " ".join(str(error).split())
    if isinstance(error, _UNPLANNED):
        text = f"something that was read is damaged or of a wrong type ({type(error).__name__}: {text})"
    return f"error: {text}"


def exit_code(work: Callable[[], None]) -> int:
    """Do the work of a command: 0, or 2 after an error of a folder, which is said on standard error."""
    try:
        work()
    except FOLDER_ERRORS as error:
        print(error_line(error), file=sys.stderr)
        return 2
    return 0
