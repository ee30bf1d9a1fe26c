"""Checks of the numbers that users give, with one wording for each rule."""

import numbers
from typing import Any


def is_integer(value: object) -> bool:
    """Whether a value is an integer of Python or NumPy, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number of Python or NumPy, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def require_integer(name: str, value: Any, low: int, high: int | None = None, or_none: str = "") -> None:
    """Check an integer.

    Args:
        name: what it is called, for the message.
        value: the integer; `None` passes if `or_none` is given.
        low, high: the smallest and the largest value, `None` for no largest one.
        or_none: what `None` stands for, such as `"to keep all"`.

    Raises:
        ValueError: it is no integer, or out of range.
    """
    if value is None and or_none:
        return
    if not is_integer(value) or value < low or (high is not None and value > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise ValueError(f"{name} must be {wanted}{f', or None {or_none}' if or_none else ''}; got {value!r}.")


def require_fraction(name: str, value: Any) -> None:
    """Check a fraction.

    Raises:
        ValueError: it is no number, or not above 0 and below 1.
    """
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, both excluded; got {value!r}.")
