"""What is generated in BENCHMARK.md. Each part stands between two markers, which name it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from benchmarks.results import provenance

from . import load_tables, micro_tables, peer_tables, rate_tables, sentences

MARKER = re.compile(r"(<!-- table: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str) -> str:
    """Return the text with its tables written anew. KeyError for a marker of a table that there is not."""
    return MARKER.sub(lambda found: found[1] + TABLES[found["name"]]() + found[3], text)


def _environment() -> str:
    found = sorted({f"{each.scale}: {each.environment.caption}" for each in provenance()})
    return "".join(f"* {line}\n" for line in found) or "Nothing was measured yet.\n"


TABLES: dict[str, Callable[[], str]] = {
    "environment": _environment,
    "result": sentences.result,
    "load-answers": load_tables.answers_table,
    "load-difference": load_tables.difference_table,
    "load-matrix": load_tables.matrix_table,
    "load-settings": load_tables.settings_table,
    "load-originals": load_tables.original_table,
    "open-loop": rate_tables.rate_table,
    "micro-calls": micro_tables.calls_table,
    "micro-queue-length": partial(micro_tables.flat_table, "queue-length", "items in the queue", 1000),
    "micro-batch-size": partial(micro_tables.flat_table, "batch-size", "items in a batch", 16),
    "servers": peer_tables.server_table,
}
