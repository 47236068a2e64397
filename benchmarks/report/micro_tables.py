"""The tables of the micro-benchmarks: what a call costs, beside the floor and the peers."""

from __future__ import annotations

from statistics import median

from benchmarks.micro.plan import groups
from benchmarks.micro.run import MicroResult, Side
from benchmarks.results import read
from benchmarks.scale import Scale
from benchmarks.spread import TWICE, Spread, clearly_differ

from .load_tables import LESS, ONCE
from .markdown import percent, table

HEAD = ("callers", "what", "calls/s", "a call, µs", "spread", "of the floor's calls/s")


def micro_results(scale: Scale) -> dict[str, MicroResult]:
    """Return the groups that were measured."""
    found = {name: read(name, scale, MicroResult) for name in groups(scale)}
    return {name: result.measured for name, result in found.items() if result is not None}


def calls_table(scale: Scale) -> str:
    """Return coroutines and threads as callers. A peer that failed says why."""
    rows: list[list[str]] = []
    results = micro_results(scale)
    for name, group in groups(scale).items():
        kind, _, number = name.removeprefix("micro/").partition("-")
        if kind not in {"coroutines", "threads"}:
            continue
        callers = f"{number} {kind}"
        rows += [[callers, side.name, *_figures(results.get(name), side)] for side in group.sides]
    return table(HEAD, rows, texts=2)


def arrays_table(scale: Scale) -> str:
    """Return the models that take one array: `batchers.arrays` beside a function that stacks by hand."""
    results = micro_results(scale)
    rows = []
    for name, group in groups(scale).items():
        model = name.removeprefix("micro/arrays-")
        if model == name:
            continue
        for side in group.sides:
            how, _, backend = side.name.rpartition("-")
            rows.append([model, backend, how, *_figures(results.get(name), side)])
    head = ("model", "backend", "batch function", "items/s", "an item, µs", "spread", "of by hand")
    return table(head, rows, texts=3)


def _figures(result: MicroResult | None, side: Side) -> list[str]:
    if result is None or side.name not in result.seconds_per_item:
        return [f"failed: {result.failed[side.name]}" if result and side.name in result.failed else "not measured"]
    spread = result.spread(side.name)
    compared = ""
    if side.floor and side.floor in result.seconds_per_item:
        floor = result.spread(side.floor)
        compared = f"{floor.middle / spread.middle:.2f}{_doubt(floor, spread)}"
    return [f"{1 / spread.middle:.0f}", f"{1e6 * spread.middle:.2f}", percent(spread.share), compared]


def _doubt(one: Spread, other: Spread) -> str:
    if clearly_differ(one, other):
        return ""
    return f" ({LESS if min(len(one.values), len(other.values)) >= TWICE else ONCE})"


def flat_table(scale: Scale, group: str, title: str, base: int) -> str:
    """Return the cost of an item against a number, beside that at `base`."""
    result = micro_results(scale).get(f"micro/{group}")
    head = (title, "backend", "an item, µs", "spread", f"of the cost at {base}")
    rows = []
    for side in groups(scale)[f"micro/{group}"].sides:
        backend, _, number = side.name.rpartition("-")
        if result is None or side.name not in result.seconds_per_item:
            rows.append([number, backend, "not measured"])
            continue
        spread = result.spread(side.name)
        reference = result.seconds_per_item.get(f"{backend}-{base}")
        rows.append(
            [
                number,
                backend,
                f"{1e6 * spread.middle:.2f}",
                percent(spread.share),
                f"{spread.middle / median(reference):.2f}" if reference else "",
            ]
        )
    return table(head, rows, texts=2)
