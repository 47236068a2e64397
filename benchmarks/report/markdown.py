"""Tables in Markdown, and numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor, log10

MISSING = "not measured"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> str:
    """Return a table; the first `texts` columns are texts, the others figures. Short rows are filled up."""
    lines = [head, ["---"] * texts + ["---:"] * (len(head) - texts), *rows]
    return "".join(f"| {' | '.join([*line, *[''] * (len(head) - len(line))])} |\n" for line in lines)


def ms(seconds: float) -> str:
    """Return milliseconds, with one digit after the point."""
    return f"{1000 * seconds:.1f}"


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def about(number: float, digits: int = 2) -> str:
    """Return a number rounded to so many significant digits, with blanks between thousands."""
    for _ in range(2):  # 9.96 becomes 10.0, which has one digit more before the point
        if number:
            places = digits - 1 - floor(log10(abs(number)))
            number = round(number, places)
    return f"{number:,.{max(places, 0)}f}".replace(",", " ") if number else "0"
