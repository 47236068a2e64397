"""The table of servers over HTTP."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.peers.http import BARE, CONNECTIONS, COSTS, SERVERS, Loaded, ServerResult
from benchmarks.peers.plan import REPEATS, name, visits
from benchmarks.results import Result, read
from benchmarks.scale import Scale
from benchmarks.spread import Spread

from .load_tables import NOT_QUICK
from .markdown import ms, table


def server_results(scale: Scale, servers: Iterable[str] = tuple(SERVERS)) -> dict[str, list[Result[ServerResult]]]:
    """Return the repeats of each server that was measured."""
    found: dict[str, list[Result[ServerResult]]] = {}
    for server in servers:
        repeats = (read(name(server, number), scale, ServerResult) for number in range(1, REPEATS + 1))
        present = [result for result in repeats if result is not None]
        if present:
            found[server] = present
    return found


def rates_of(repeats: list[Result[ServerResult]], connections: int) -> Spread:
    """Return requests a second with so many connections."""
    return Spread(tuple(load.rate for load in _loads(repeats, connections)))


def _loads(repeats: list[Result[ServerResult]], connections: int) -> list[Loaded]:
    return [load for result in repeats for load in result.measured.loads if load.connections == connections]


def server_table(scale: Scale) -> str:
    """Return requests a second and p99 for each number of connections: medians, with the smallest and largest."""
    if not visits(scale):
        return NOT_QUICK
    head = ["server", *(f"{number} connections" for number in CONNECTIONS), "failures", "memory, MB"]
    rows = []
    results = server_results(scale)
    for server in SERVERS:
        repeats = results.get(server, [])
        failed = [result.measured.failed for result in repeats if result.measured.failed]
        if len(failed) == len(repeats):
            rows.append([server, f"failed: {failed[0]}" if failed else "not measured"])
            continue
        repeats = [result for result in repeats if not result.measured.failed]
        failures = sum(load.failures for result in repeats for load in result.measured.loads)
        memory = Spread(tuple(result.measured.resident_bytes for result in repeats)).middle
        rows.append(
            [
                server,
                *(_figures(repeats, number) for number in CONNECTIONS),
                f"{failures}",
                f"{memory / 1e6:.0f}",
            ]
        )
    return table(head, rows)


def cost_table(scale: Scale) -> str:
    """Return the CPU time of a request without a model."""
    if not visits(scale):
        return NOT_QUICK
    results = server_results(scale, COSTS)
    found = {server: _cpu(results.get(server, [])) for server in COSTS}
    floor = found[BARE]
    rows = []
    for server, cpu in found.items():
        if cpu is None:
            rows.append([server, "not measured", ""])
        else:
            ratio = "1" if server == BARE or floor is None else f"{cpu.middle / floor.middle:.1f}"
            low, high = (1e6 * edge(cpu.values) for edge in (min, max))
            rows.append([server, f"{1e6 * cpu.middle:.0f} ({low:.0f} to {high:.0f})", ratio])
    return table(["server", "CPU of a request, us", "against the bare protocol"], rows)


def _cpu(repeats: list[Result[ServerResult]]) -> Spread | None:
    found = tuple(load.cpu for result in repeats for load in result.measured.loads if load.cpu is not None)
    return Spread(found) if found else None


def _figures(repeats: list[Result[ServerResult]], connections: int) -> str:
    rate = rates_of(repeats, connections)
    slow = Spread(tuple(load.p99 for load in _loads(repeats, connections)))
    low, high = min(rate.values), max(rate.values)
    return f"{rate.middle:.0f} ({low:.0f} to {high:.0f}), {ms(slow.middle)} ms"
