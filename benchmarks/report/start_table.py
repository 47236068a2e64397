"""The table of imports and of the start."""

from __future__ import annotations

from benchmarks.results import read
from benchmarks.scale import Scale
from benchmarks.start.run import StartResult

from .markdown import ms, percent, table

PARTS = {
    "asyncio": "`import asyncio`",
    "batchers": "`import batchers`, after it",
    "tensorflow": "`import tensorflow`",
    "server": "the server is ready, after it",
}


def start_table(scale: Scale) -> str:
    """Return the median of each part."""
    found = read("start/imports", scale, StartResult)
    rows = []
    for part, words in PARTS.items():
        if found is None:
            rows.append([words, "not measured"])
            continue
        spread = found.measured.spread(part)
        rows.append([words, ms(spread.middle), percent(spread.share)])
    return table(("what", "ms", "spread"), rows)
