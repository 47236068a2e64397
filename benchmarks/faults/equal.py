"""Mutants that are equal in meaning to what they came from, and why: no test can tell them."""

from __future__ import annotations

from typing import NamedTuple

from .mutants import Survivor


class Equal(NamedTuple):
    """A change that changes nothing."""

    function: str
    """With its module and class."""
    was: str
    """A part of the line that only this line has, in that function."""
    became: str
    why: str


EQUAL: tuple[Equal, ...] = ()


def why_equal(survivor: Survivor) -> str:
    """Return why a survivor is equal in meaning; empty: nobody has said so, and a test is missing."""
    function = f"{survivor.module}.{survivor.function}"
    for equal in EQUAL:
        if equal.function == function and survivor.was.replace(equal.was, equal.became) == survivor.became:
            return equal.why
    return ""
