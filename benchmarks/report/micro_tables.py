"""The tables of the micro-benchmarks: what a call costs, beside the floor and the peers."""

from __future__ import annotations

from benchmarks.micro.plan import groups
from benchmarks.micro.run import MicroResult, Side
from benchmarks.results import read
from benchmarks.spread import Spread, clearly_differ

from .markdown import percent, table

HEAD = ("callers", "what", "calls/s", "a call, µs", "spread", "of the floor's calls/s")


def micro_results() -> dict[str, MicroResult]:
    """Return the groups that were measured."""
    found = {name: read(name, MicroResult) for name in groups("full")}
    return {name: result.measured for name, result in found.items() if result is not None}


def calls_table() -> str:
    """Return coroutines and threads as callers. A peer that failed says why."""
    rows: list[list[str]] = []
    results = micro_results()
    for name, group in groups("full").items():
        kind, _, number = name.removeprefix("micro/").partition("-")
        if kind not in {"coroutines", "threads"}:
            continue
        callers = f"{number} {kind}"
        rows += [[callers, side.name, *_figures(results.get(name), side)] for side in group.sides]
    return table(HEAD, rows, texts=2)


def _figures(result: MicroResult | None, side: Side) -> list[str]:
    if result is not None and side.name in result.failed:
        return [f"failed: {result.failed[side.name]}"]
    if result is None or side.name not in result.seconds_per_item:
        return ["not measured"]
    spread = result.spread(side.name)
    compared = ""
    if side.floor and side.floor in result.seconds_per_item:
        floor = result.spread(side.floor)
        compared = f"{floor.middle / spread.middle:.2f}{_doubt(floor, spread)}"
    return [f"{1 / spread.middle:.0f}", f"{1e6 * spread.middle:.2f}", percent(spread.share), compared]


def _doubt(one: Spread, other: Spread) -> str:
    return "" if clearly_differ(one, other) else " (less than the spread)"


def flat_table(group: str, title: str, base: int) -> str:
    """Return the cost of an item against a number, beside that at `base`."""
    result = micro_results().get(f"micro/{group}")
    head = (title, "backend", "an item, µs", "spread", f"of the cost at {base}")
    rows = []
    for side in groups("full")[f"micro/{group}"].sides:
        backend, _, number = side.name.partition("-")
        if result is None or side.name not in result.seconds_per_item:
            rows.append([number, backend, "not measured"])
            continue
        spread = result.spread(side.name)
        reference = result.spread(f"{backend}-{base}").middle
        rows.append(
            [
                number,
                backend,
                f"{1e6 * spread.middle:.2f}",
                percent(spread.share),
                f"{spread.middle / reference:.2f}",
            ]
        )
    return table(head, rows, texts=2)
