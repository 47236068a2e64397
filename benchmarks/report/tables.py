"""What is generated in BENCHMARK.md and docs/benchmarks. Each part stands between two markers, which name it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from benchmarks.results import provenance
from benchmarks.scale import Scale

from . import (
    fault_tables,
    lengths_table,
    load_tables,
    micro_tables,
    peer_tables,
    policy_tables,
    rate_tables,
    replica_table,
    start_table,
)
from .overview import OVERVIEW

SCALE = re.compile(r"Scale: \*(\w+)\*")

MARKER = re.compile(r"(<!-- table: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, scale: Scale) -> str:
    """Return the text with its tables written anew from results of this scale. KeyError for an unknown marker."""
    return MARKER.sub(lambda found: found[1] + TABLES[found["name"]](scale) + found[3], text)


def scale_of(text: str) -> Scale:
    """Return the scale of the results in a report. KeyError when it does not say."""
    return {"full": "full", "quick": "quick"}[SCALE.search(text)[1]]  # type: ignore[index, return-value]


def _environment(scale: Scale) -> str:
    found: dict[str, set[str]] = {}
    for each in provenance(scale):
        found.setdefault(each.environment.caption, set()).add(each.name.partition("/")[0])
    lines = (f"* {', '.join(sorted(parts))}: {caption}\n" for caption, parts in found.items())
    return "".join(lines) or "Nothing was measured yet.\n"


TABLES: dict[str, Callable[[Scale], str]] = {
    **OVERVIEW,
    "environment": _environment,
    "load-answers": load_tables.answers_table,
    "load-difference": load_tables.difference_table,
    "load-matrix": load_tables.matrix_table,
    "load-settings": load_tables.settings_table,
    "load-originals": load_tables.original_table,
    "open-loop": rate_tables.rate_table,
    "micro-calls": micro_tables.calls_table,
    "micro-arrays": micro_tables.arrays_table,
    "micro-queue-length": partial(micro_tables.flat_table, group="queue-length", title="items queued", base=1000),
    "micro-cancelled": partial(micro_tables.flat_table, group="cancelled", title="items queued", base=1000),
    "micro-groups": partial(micro_tables.flat_table, group="groups", title="groups", base=1),
    "micro-priorities": partial(micro_tables.flat_table, group="priorities", title="priorities", base=1),
    "micro-deadlines": partial(micro_tables.flat_table, group="deadlines", title="deadlines", base=1),
    "micro-batch-size": partial(micro_tables.flat_table, group="batch-size", title="batch size", base=16),
    "servers": peer_tables.server_table,
    "ray": replica_table.replica_table,
    "requests": peer_tables.cost_table,
    "policies-lines": policy_tables.lines_table,
    "policies-open": policy_tables.open_table,
    "policies-closed": policy_tables.closed_table,
    "policies-devices": policy_tables.devices_table,
    "policies-overload": policy_tables.overload_table,
    "policies-lengths": policy_tables.lengths_table,
    "lengths-texts": lengths_table.texts_table,
    "policies-real-open": policy_tables.real_open_table,
    "policies-real-closed": policy_tables.real_closed_table,
    "faults": fault_tables.fault_table,
    "faults-promises": fault_tables.promise_sentence,
    "faults-mutants": fault_tables.mutant_table,
    "faults-survivors": fault_tables.survivor_table,
    "start": start_table.start_table,
}
