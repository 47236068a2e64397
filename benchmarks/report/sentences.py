"""The result in three sentences, which say what the tables say."""

from __future__ import annotations

from statistics import fmean
from typing import get_args

from benchmarks.load.run import Backend, LoadResult, ModelCall
from benchmarks.results import Result
from benchmarks.spread import Spread, clearly_differ

from .load_tables import load_results
from .markdown import ms
from .micro_tables import micro_results
from .peer_tables import rates_of, server_results

CONNECTIONS = 64
"""With which servers are compared here."""

MISSING = "Not all was measured yet: run `python -m benchmarks all`.\n"


def result() -> str:
    """Return the sentences, or that something is missing."""
    cells = load_results()
    calls = {
        (call, backend): [
            found
            for found in cells
            if found.name.startswith(f"load/optimized_predict-{call}-") and found.measured.cell.backend == backend
        ]
        for call in get_args(ModelCall)
        for backend in get_args(Backend)
    }
    cost, servers = _cost(), _servers()
    if not all(calls.values()) or not cost or not servers:
        return MISSING
    return f"1. {_worse(calls)}\n2. {_at_the_top(calls)}\n3. {cost} {servers}\n"


Calls = dict[tuple[ModelCall, Backend], list[Result[LoadResult]]]


def _means(results: list[Result[LoadResult]]) -> Spread:
    return Spread(tuple(found.measured.top.mean for found in results))


def _worse(calls: Calls) -> str:
    worse: dict[Backend, list[str]] = {"threading": [], "asyncio": []}
    for call in get_args(ModelCall):
        threading, asyncio = _means(calls[call, "threading"]), _means(calls[call, "asyncio"])
        if clearly_differ(threading, asyncio):
            slower: Backend = "asyncio" if asyncio.middle > threading.middle else "threading"
            fast, slow = sorted((threading.middle, asyncio.middle))
            worse[slower].append(f"{call} (mean {ms(slow)} ms against {ms(fast)} ms)")
    users = calls["compiled", "asyncio"][0].measured.cell.most_users
    found = [f"{backend} is slower with {' and '.join(where)}" for backend, where in worse.items() if where]
    if not found:
        return f"With {users} users the backends differ by less than repeats of either do, with every model call."
    return f"With {users} users {', '.join(found)}; elsewhere they differ by less than repeats of either do."


def _at_the_top(calls: Calls) -> str:
    parts = []
    for call in ("compiled", "emulated"):
        for backend in get_args(Backend):
            tops = [found.measured.top for found in calls[call, backend]]
            failed = sum(sum(top.failures.values()) for top in tops)
            total = sum(top.requests_per_second * top.seconds for top in tops)
            mean, p95 = fmean(top.mean for top in tops), fmean(top.p95 for top in tops)
            parts.append(
                f"{backend} with the {call} model answers in {ms(mean)} ms (p95 {ms(p95)} ms) "
                f"and fails {failed} of {total:.0f}"
            )
    rate = calls["compiled", "asyncio"][0].measured.top.requests_per_second
    return f"At {rate:.0f} requests a second {'; '.join(parts)}."


def _cost() -> str:
    results = micro_results()
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


def _servers() -> str:
    rates = {server: rates_of(repeats, CONNECTIONS) for server, repeats in server_results().items()}
    found = sorted(((rate.middle, server) for server, rate in rates.items() if rate.values), reverse=True)
    if not found:
        return ""
    listed = ", ".join(f"{server} {rate:.0f}" for rate, server in found)
    return f"Over HTTP with {CONNECTIONS} connections, requests a second: {listed}."
