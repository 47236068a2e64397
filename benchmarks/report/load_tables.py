"""The tables of the closed loop: Locust's users."""

from __future__ import annotations

from statistics import fmean
from typing import get_args

from benchmarks.load.plan import ORIGINALS, cells
from benchmarks.load.run import Backend, LoadResult, ModelCall, Second
from benchmarks.results import Result, read
from benchmarks.scale import Scale
from benchmarks.spread import TWICE, Spread, clearly_differ

from .markdown import ms, percent, table

HEAD = (
    "what",
    "requests/s",
    "failures/s",
    "mean, ms",
    "p50, ms",
    "p95, ms",
    "p99, ms",
    "batch*",
    "CPU, s*",
)

NOT_QUICK = "A quick run leaves this out.\n"

LESS = "less than the spread"
ONCE = "measured once"

FAILING = 0.01
"""The share of failures from which on a server counts as failing."""
WINDOW = 5
"""Seconds that are looked at together for that."""


def matrix(scale: Scale) -> list[str]:
    """Return the names of those that are neither the original's nor of special settings."""
    return [name for name in cells(scale) if name.count("/") == 1]


def load_results(scale: Scale) -> list[Result[LoadResult]]:
    """Return the results of the matrix that there are, in the order of the plan."""
    found = [read(name, scale, LoadResult) for name in matrix(scale)]
    return [result for result in found if result is not None]


def originals(scale: Scale) -> dict[str, Result[LoadResult]]:
    """Return those of the original report's measurements that there are."""
    found = {name: read(f"load/original/{name}", scale, LoadResult) for name in ORIGINALS}
    return {name: result for name, result in found.items() if result is not None}


def tops(scale: Scale, call: ModelCall, backend: Backend, figure: str) -> Spread:
    """Return a figure of the repeats of one backend, with all users there."""
    prefix = f"load/optimized_predict-{call}-{backend}"
    return Spread(
        tuple(
            getattr(result.measured.top, figure)
            for result in load_results(scale)
            if result.name.startswith(prefix)
        )
    )


def _row(scale: Scale, name: str) -> list[str]:
    result = read(name, scale, LoadResult)
    title = name.removeprefix("load/").removeprefix("original/").removeprefix("settings/")
    if result is None:
        return [title, "not measured"]
    measured = result.measured
    top = measured.top
    return [
        title,
        f"{top.requests_per_second:.1f}",
        f"{top.failures_per_second:.2f}",
        *map(ms, (top.mean, top.p50, top.p95, top.p99)),
        "" if measured.cell.path == "/predict" else f"{measured.batch_size_mean:.1f}",
        f"{measured.cpu_seconds:.1f}",
    ]


def original_table(scale: Scale) -> str:
    """Return the three measurements of the original report."""
    return table(HEAD, (_row(scale, f"load/original/{name}") for name in ORIGINALS))


def matrix_table(scale: Scale) -> str:
    """Return the matrix."""
    return table(HEAD, (_row(scale, name) for name in matrix(scale)))


def settings_table(scale: Scale) -> str:
    """Return one backend and one model call with different settings, then with the defaults."""
    names = [name for name in cells(scale) if name.startswith("load/settings/")]
    if not names:
        return NOT_QUICK
    defaults = [name for name in matrix(scale) if name.startswith("load/optimized_predict-keras-asyncio")]
    return table(HEAD, (_row(scale, name) for name in [*names, *defaults]))


def failures_start(seconds: list[Second]) -> float | None:
    """Return the requests a second in the first window in which more than `FAILING` of them failed, or None."""
    for start in range(len(seconds) - WINDOW + 1):
        window = seconds[start : start + WINDOW]
        requests = sum(second.requests for second in window)
        if requests and sum(second.failures for second in window) / requests > FAILING:
            return requests / WINDOW
    return None


def answers_table(scale: Scale) -> str:
    """Return what the original report asks of its three measurements."""
    head = ("what", "failures start at", "failures/s at the end", "mean at the end, ms", "p95 at the end, ms")
    rows = []
    found = originals(scale)
    for name in ORIGINALS:
        if name not in found:
            rows.append([name, "not measured"])
            continue
        measured = found[name].measured
        start = failures_start(measured.seconds)
        rows.append(
            [
                name,
                "never" if start is None else f"{start:.0f} requests/s",
                f"{measured.top.failures_per_second:.2f}",
                ms(measured.top.mean),
                ms(measured.top.p95),
            ]
        )
    return table(head, rows)


def difference_table(scale: Scale) -> str:
    """Return the two backends beside each other, from the rows that were measured A B B A."""
    head = ("model call", "figure", "threading", "asyncio", "asyncio against threading")
    rows = []
    results = load_results(scale)
    for call in get_args(ModelCall):
        for field, title in (("mean", "mean, ms"), ("p95", "p95, ms")):
            spreads = {
                backend: Spread(
                    tuple(
                        getattr(result.measured.top, field)
                        for result in results
                        if result.name.startswith(f"load/optimized_predict-{call}-{backend}")
                    )
                )
                for backend in ("threading", "asyncio")
            }
            if all(spread.values for spread in spreads.values()):
                rows.append([call, title, *(_range(spread) for spread in spreads.values()), verdict(**spreads)])
            else:
                rows.append([call, title, "not measured"])
    return table(head, rows, texts=2)


def _range(spread: Spread) -> str:
    return f"{ms(fmean(spread.values))} ({ms(min(spread.values))} to {ms(max(spread.values))})"


def verdict(threading: Spread, asyncio: Spread) -> str:
    """Return by how much the median of asyncio differs, or that the repeats of one differ by more."""
    if not clearly_differ(threading, asyncio):
        return LESS if len(threading.values) >= TWICE else ONCE
    difference = asyncio.middle / threading.middle - 1
    return f"{'+' if difference > 0 else '-'}{percent(abs(difference))}"
