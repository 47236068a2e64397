"""The table of batches in Ray Serve."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.replicas import VARIANTS, ReplicaLoad, ReplicaResult, names
from benchmarks.results import read
from benchmarks.scale import Scale
from benchmarks.spread import Spread

from .load_tables import NOT_QUICK
from .markdown import ms, table

WORDS = {"serve.batch": "`serve.batch`", "batchers": "`batchers.integrations.ray.batch`"}


def replica_table(scale: Scale) -> str:
    """Return medians, for each variant and number of callers."""
    if not names(scale):
        return NOT_QUICK
    read_all = [(variant, read(name, scale, ReplicaResult)) for name, variant in names(scale).items()]
    found = [(variant, result.measured.loads) for variant, result in read_all if result is not None]
    rows = []
    for variant in VARIANTS:
        loads = [load for each, measured in found if each == variant for load in measured]
        if not loads:
            rows.append([WORDS[variant], "not measured"])
        for callers in sorted({load.callers for load in loads}):
            these = [load for load in loads if load.callers == callers]
            rows.append(
                [
                    WORDS[variant],
                    f"{callers}",
                    f"{_middle(these, lambda load: load.rate):.0f}",
                    ms(_middle(these, lambda load: load.p99)),
                    f"{_middle(these, lambda load: load.mean_batch):.1f}",
                    f"{sum(load.no_outcome for load in these)}",
                    f"{sum(load.wrong + load.failed for load in these)}",
                ]
            )
    head = (
        "decorator",
        "callers",
        "answers/s",
        "p99, ms",
        "mean batch",
        "calls without outcome",
        "wrong or failed",
    )
    return table(head, rows)


def _middle(loads: list[ReplicaLoad], figure: Callable[[ReplicaLoad], float]) -> float:
    return Spread(tuple(map(figure, loads))).middle
