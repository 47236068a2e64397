"""The result in three sentences, which say what the tables say."""

from __future__ import annotations

from statistics import median
from typing import get_args

from benchmarks.load.run import Backend, LoadResult, ModelCall
from benchmarks.results import Result
from benchmarks.scale import Scale
from benchmarks.spread import Spread, clearly_differ

from .load_tables import load_results
from .markdown import ms
from .micro_tables import micro_results
from .peer_tables import rates_of, server_results

CONNECTIONS = 64
"""With which servers are compared here."""

MISSING = "Not all was measured yet: run `python -m benchmarks all`, or `quick`.\n"


def result(scale: Scale) -> str:
    """Return the sentences, or that something is missing."""
    cells = load_results(scale)
    calls = {
        (call, backend): [
            found
            for found in cells
            if found.name.startswith(f"load/optimized_predict-{call}-") and found.measured.cell.backend == backend
        ]
        for call in get_args(ModelCall)
        for backend in get_args(Backend)
    }
    cost, servers = _cost(scale), _servers(scale)
    if not all(calls.values()) or not cost:
        return MISSING
    return f"1. {_worse(calls)}\n2. {_at_the_top(calls)}\n3. {cost}{servers}\n"


Calls = dict[tuple[ModelCall, Backend], list[Result[LoadResult]]]


def _figures(results: list[Result[LoadResult]], name: str) -> Spread:
    return Spread(tuple(getattr(found.measured.top, name) for found in results))


def _worse(calls: Calls) -> str:
    worse: dict[Backend, list[str]] = {"threading": [], "asyncio": []}
    for call in get_args(ModelCall):
        for figure in ("mean", "p95", "failures_per_second"):
            threading, asyncio = (_figures(calls[call, backend], figure) for backend in get_args(Backend))
            if clearly_differ(threading, asyncio):
                slower: Backend = "asyncio" if asyncio.middle > threading.middle else "threading"
                less, more = sorted((threading.middle, asyncio.middle))
                unit = "failures/s" if figure == "failures_per_second" else f"ms {figure}"
                scale = 1 if figure == "failures_per_second" else 1000
                worse[slower].append(f"{call}, {scale * more:.1f} {unit} against {scale * less:.1f}")
    users = calls["compiled", "asyncio"][0].measured.cell.most_users
    found = [f"{backend} is worse ({'; '.join(where)})" for backend, where in worse.items() if where]
    if not found:
        return f"With {users} users neither backend is worse than the other by more than repeats of either differ."
    return f"With {users} users {' and '.join(found)}; all else differs by less than repeats of either do."


def _at_the_top(calls: Calls) -> str:
    parts = []
    for call in ("compiled", "emulated"):
        for backend in get_args(Backend):
            tops = [found.measured.top for found in calls[call, backend]]
            failed = sum(sum(top.failures.values()) for top in tops)
            total = sum(top.requests_per_second * top.seconds for top in tops)
            mean, p95 = median(top.mean for top in tops), median(top.p95 for top in tops)
            parts.append(
                f"{backend} with the {call} model, at {total / sum(top.seconds for top in tops):.0f} requests/s, "
                f"answers in {ms(mean)} ms (p95 {ms(p95)} ms) and fails {failed} of {total:.0f}"
            )
    return f"With all users there, {'; '.join(parts)}."


def _cost(scale: Scale) -> str:
    results = micro_results(scale)
    parts = []
    for title, group, side, floor in (
        ("the asyncio backend costs {} µs with 64 coroutines", "coroutines-64", "asyncio-async", "asyncio-floor"),
        ("the threading backend {} µs with 64 threads", "threads-64", "threading-sync", "floor"),
    ):
        measured = results.get(f"micro/{group}")
        if measured is None or not {side, floor} <= set(measured.seconds_per_item):
            return ""
        own, least = measured.spread(side).middle, measured.spread(floor).middle
        parts.append(f"{title.format(f'{1e6 * own:.1f}')} (the floor, without any feature: {1e6 * least:.1f} µs)")
    return f"A call to {', and to '.join(parts)}."


def _servers(scale: Scale) -> str:
    rates = {server: rates_of(repeats, CONNECTIONS) for server, repeats in server_results(scale).items()}
    found = sorted(
        ((rate, server) for server, rate in rates.items() if rate.values),
        key=lambda each: each[0].middle,
        reverse=True,
    )
    if not found:
        return ""
    listed = ""
    for place, (rate, server) in enumerate(found):
        if place:
            listed += ", then " if clearly_differ(found[place - 1][0], rate) else ", about even with "
        listed += f"*{server}* {rate.middle:.0f}"
    return f" Over HTTP with {CONNECTIONS} connections, requests a second: {listed}."
