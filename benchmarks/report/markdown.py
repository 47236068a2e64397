"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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
