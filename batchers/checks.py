"""Checks of numbers that users pass: whatever says that it is an int or a float counts as one.

It imports `errors` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from operator import index
from typing import SupportsFloat, SupportsIndex

from .errors import OptionError


def as_int(value: object) -> int | None:
    """Return the int that `value.__index__` gives; None if `value` is a bool or has no such method.

    So an `IntEnum` and integers of numpy count.
    """
    if type(value) is int:  # nearly always; the check for a protocol takes 3 us
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    return index(value)


def as_float(value: object) -> float | None:
    """Return `value` as a float, by its `__float__` or `__index__`; None for a bool, and if it has neither.

    So a `Fraction`, a `Decimal` and floats of numpy count. Text does not. The result may be NaN or infinite. An
    int stays one, so that messages show it as the user wrote it.
    """
    if type(value) is float or type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsFloat | SupportsIndex):
        return None
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):  # too large an int, or an array of several numbers
        return None


def whole_number(option: str, value: object, also: str = "") -> int:
    """Return `value` as an int of 1 or more, or -1 for no limit; OptionError, with the name, for anything else."""
    number = as_int(value)
    if number is None or (number < 1 and number != -1):
        more = f", {also}" if also else ""
        msg = f"{option} must be a whole number, 1 or more, or -1 for no limit{more}, not {value!r}"
        raise OptionError(msg)
    return number


def positive(option: str, value: object) -> float | None:
    """Return `value` as a float above 0; None for None; OptionError, with the name, for anything else."""
    if value is None:
        return None
    number = as_float(value)
    if number is None or not number > 0:
        msg = f"{option} must be a number above 0, or None for no limit, not {value!r}"
        raise OptionError(msg)
    return number


def seconds(what: str, value: object) -> float:
    """Return `value` as a finite float, 0 or more; OptionError, which begins with `what`, for anything else."""
    number = as_float(value)
    if number is None or not 0 <= number < inf:
        msg = f"{what} must be a finite number of seconds, 0 or more, not {value!r}"
        raise OptionError(msg)
    return number


def as_sizes(value: object) -> tuple[int, ...] | None:
    """Return the whole numbers of a sequence, each once, ascending; None if there is none, or one below 1."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return None
    sizes: set[int] = set()
    for each in value:
        size = as_int(each)
        if size is None or size < 1:
            return None
        sizes.add(size)
    return tuple(sorted(sizes)) or None
