"""The tables of policies: against each other, and against what is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isnan
from statistics import median
from typing import TypeVar, get_args

from pydantic import BaseModel

from benchmarks.latency.result import pooled
from benchmarks.latency.run import RateResult
from benchmarks.load.run import Backend
from benchmarks.policies.closed_loop import CONNECTIONS, MOST, LoopResult, LoopRun
from benchmarks.policies.lengths import CLAIRVOYANT, OURS, SIMPLE, LengthsResult, Served
from benchmarks.policies.plan import LINES, PADDED, cases, lengths, loops, rates
from benchmarks.policies.simulated import SimulatedResult
from benchmarks.results import Result, read
from benchmarks.scale import Scale
from benchmarks.theory.bounds import (
    Line,
    best_mean,
    closed_form,
    closed_loop_bound,
    control_limit_mean,
    lower_bound,
    two_cohorts,
)

from .load_tables import NOT_QUICK
from .markdown import ms, table

FIXED = ("greedy", "window")
"""Policies whose settings are fixed begin so."""

R = TypeVar("R", bound=BaseModel)


def simulated_results(scale: Scale) -> dict[str, Result[SimulatedResult]]:
    """Return the simulated cases that there are, by their names without the part."""
    return _present(cases(scale), "policies/simulated-", scale, SimulatedResult)


def _present(names: object, prefix: str, scale: Scale, kind: type[R]) -> dict[str, Result[R]]:
    found = {}
    for name in names:  # type: ignore[attr-defined]  # any plan
        result = read(name, scale, kind)
        if result is not None:
            found[name.removeprefix(prefix)] = result
    return found


def simulated_of(scale: Scale, what: str) -> Iterator[tuple[str, str, SimulatedResult]]:
    """Yield the cases of one kind: the line, the value, and what came out."""
    for name, result in simulated_results(scale).items():
        line, _, case = name.partition("-")
        kind, _, value = case.partition("-")
        if kind == what:
            yield line, value, result.measured


def _best_fixed(result: SimulatedResult, figure: Callable[[str], float], best: Callable[..., str]) -> str:
    return best((policy for policy in result.policies if policy.startswith(FIXED)), key=figure)


def lines_table(_: Scale) -> str:
    """Return what is simulated."""
    rows = [
        [name, f"{1000 * line.a:g}", f"{1000 * line.b:g}", f"{line.most}", f"{line.capacity:.0f}"]
        for name, line in LINES.items()
    ]
    return table(["cost model", "a, ms", "b, ms", "most items", "capacity, items/s"], rows)


def open_table(scale: Scale) -> str:
    """Return the open loop, simulated: means beside the best that any waiting rule can have."""
    head = ["cost model", "items/s", "greedy, exact", "best possible", "lower bound", "greedy", "adaptive"]
    head += ["adaptive against best", "p99 greedy", "p99 adaptive", "best fixed setting", "its mean"]
    rows = []
    for line, value, result in simulated_of(scale, "poisson"):
        greedy, adaptive = result.policies["greedy"], result.policies["adaptive"]
        theory = result.theory
        best = _best_fixed(result, lambda policy, of=result: of.policies[policy].mean, min)  # type: ignore[misc]
        # The same arrivals met Greedy, whose mean is known: what chance has done to both falls out.
        ratio = adaptive.mean / greedy.mean * theory["greedy_mean"] / theory["best_mean"]
        rows.append(
            [
                *(
                    line,
                    value,
                    _fine(theory["greedy_mean"]),
                    _fine(theory["best_mean"]),
                    _fine(theory["lower_bound"]),
                ),
                *(
                    _fine(greedy.mean),
                    _fine(adaptive.mean),
                    f"{ratio:.3f}",
                    _fine(greedy.p99),
                    _fine(adaptive.p99),
                ),
                *(best, _fine(result.policies[best].mean)),
            ]
        )
    return table(head, rows, texts=1)


def closed_table(scale: Scale) -> str:
    """Return the closed loop, simulated: items a second beside the bound."""
    head = [
        "cost model",
        "clients",
        "bound",
        "greedy",
        "adaptive",
        "adaptive against bound",
        "best fixed setting",
        "its items/s",
    ]
    rows = []
    for line, value, result in simulated_of(scale, "clients"):
        bound = result.theory["throughput_bound"]
        best = _best_fixed(result, lambda policy, of=result: of.policies[policy].throughput, max)  # type: ignore[misc]
        adaptive = result.policies["adaptive"].throughput
        rows.append(
            [
                *(line, value, f"{bound:.0f}", f"{result.policies['greedy'].throughput:.0f}", f"{adaptive:.0f}"),
                *(f"{adaptive / bound:.3f}", best, f"{result.policies[best].throughput:.0f}"),
            ]
        )
    return table(head, rows, texts=1)


def devices_table(scale: Scale) -> str:
    """Return four devices and bursts, simulated: means."""
    head = [
        "cost model",
        "case",
        "lower bound",
        "greedy",
        "adaptive",
        "adaptive against greedy",
        "best fixed setting",
    ]
    head += ["its mean"]
    rows = []
    for what in ("devices", "bursts"):
        for line, _, result in simulated_of(scale, what):
            greedy, adaptive = result.policies["greedy"].mean, result.policies["adaptive"].mean
            devices = f", {result.case.devices} devices" if result.case.devices > 1 else ""
            bound = result.theory.get("lower_bound")
            best = _best_fixed(result, lambda policy, of=result: of.policies[policy].mean, min)  # type: ignore[misc]
            rows.append(
                [
                    *(line, result.case.source + devices, "" if bound is None else _fine(bound)),
                    *(_fine(greedy), _fine(adaptive), f"{adaptive / greedy:.3f}", best),
                    _fine(result.policies[best].mean),
                ]
            )
    return table(head, rows, texts=2)


def overload_table(scale: Scale) -> str:
    """Return overload with deadlines, simulated: answers in time, against the capacity."""
    head = [
        "cost model",
        "load",
        "deadline, ms",
        "capacity",
        "greedy in time",
        "adaptive in time",
        "share",
        "p99, ms",
    ]
    head += ["best fixed setting in time", "which"]
    rows = []
    for line, value, result in simulated_of(scale, "overload"):
        greedy, adaptive = result.policies["greedy"], result.policies["adaptive"]
        capacity = result.case.line.capacity
        best = _best_fixed(result, lambda policy, of=result: of.policies[policy].goodput, max)  # type: ignore[misc]
        rows.append(
            [
                *(line, value, ms(result.case.deadline or 0.0), f"{capacity:.0f}", f"{greedy.goodput:.0f}"),
                *(f"{adaptive.goodput:.0f}", f"{adaptive.goodput / capacity:.3f}"),
                "" if isnan(adaptive.p99) else ms(adaptive.p99),
                *(f"{result.policies[best].goodput:.0f}", best),
            ]
        )
    return table(head, rows, texts=1)


def lengths_table(scale: Scale) -> str:
    """Return the items of different lengths: each rule, and ours against the best simple one."""
    head = ["a, b in ms", "load", *SIMPLE, OURS, CLAIRVOYANT, "against the best simple rule", "p99 against its"]
    names = list(PADDED)
    rows = []
    for name, result in _present(lengths(scale), "policies/lengths-", scale, LengthsResult).items():
        case, rules = result.measured.case, result.measured.rules
        closed = case.kind == "clients"
        best = min((rules[rule] for rule in SIMPLE), key=lambda each: -each.throughput if closed else each.mean)
        ours = rules[OURS]
        share = ours.throughput / best.throughput if closed else best.mean / ours.mean
        rows.append(
            [
                *(names[int(name.partition("-")[0])], f"{case.load:g}" + (" clients" if closed else "")),
                *(_rate_or_means(rules[rule], closed=closed) for rule in (*SIMPLE, OURS, CLAIRVOYANT)),
                *(f"{share:.2f}", f"{ours.p99 / best.p99:.2f}" if best.kept_up else ""),
            ]
        )
    return table(head, rows, texts=2)


def _rate_or_means(served: Served, *, closed: bool) -> str:
    if closed:
        return f"{served.throughput:.0f}"
    if not served.kept_up:
        return "does not keep up"
    return f"{1000 * served.mean:.0f}, {1000 * served.p99:.0f}"


def real_open_table(scale: Scale) -> str:
    """Return the open loop in real time: means beside the exact value for the run's own a and b."""
    if not rates(scale):
        return NOT_QUICK
    head = [
        "where",
        "calls/s",
        "policy",
        "backend",
        "mean, ms",
        "a, ms",
        "b, ms",
        "exact, ms",
        "against exact",
        "best possible, ms",
        "lower bound, ms",
        "closed form, ms",
        "p99, ms",
    ]
    rows = []
    for result in _present(rates(scale), "policies/", scale, RateResult).values():
        rate = result.measured.rate
        for backend in get_args(Backend):
            runs = result.measured.runs[backend]
            fits = [run.line for run in runs if run.line is not None]
            lines = [Line(each.a, each.b, rate.max_batch_size) for each in fits]
            exact = median(control_limit_mean(line, rate.rate) for line in lines)
            bounds = (
                median(best_mean(line, rate.rate)[0] for line in lines),
                median(lower_bound(line, rate.rate) for line in lines),
                median(closed_form(line, rate.rate) for line in lines),
            )
            mean = pooled(runs, "mean").middle
            slow = pooled(runs, "p99")
            rows.append(
                [
                    *(rate.place, f"{rate.rate:.0f}", rate.policy, backend, _fine(mean)),
                    *(_fine(median(line.a for line in lines)), f"{1000 * median(line.b for line in lines):.3f}"),
                    *(_fine(exact), f"{mean / exact:.3f}", *map(_fine, bounds)),
                    ms(slow.middle) if slow.values else "",
                ]
            )
    return table(head, rows, texts=1)


def real_closed_table(scale: Scale) -> str:
    """Return the closed loop behind the server: answers a second, greedy and adaptive."""
    if not loops(scale):
        return NOT_QUICK
    head = ["model", "backend", "connections", "greedy", "adaptive", "adaptive against greedy", "p99 greedy, ms"]
    head += ["p99 adaptive, ms", "batch greedy", "batch adaptive", "two halves", "bound"]
    rows = []
    for result in loop_results(scale).values():
        for place, connections in enumerate(CONNECTIONS):
            greedy, adaptive = (
                [run[place] for run in result.measured.runs[policy]] for policy in ("greedy", "adaptive")
            )
            halves = median(two_cohorts(_line(run), connections) for run in greedy)
            # The time away is not known; without any no rule can serve more.
            bound = median(closed_loop_bound(_line(run), connections, 0.0) for run in adaptive)
            rows.append(
                [
                    *(result.measured.loop.model_call, result.measured.loop.backend, f"{connections}"),
                    *(_rates(greedy), _rates(adaptive), f"{_rate(adaptive) / _rate(greedy):.2f}"),
                    *(ms(median(run.loaded.p99 for run in each)) for each in (greedy, adaptive)),
                    *(f"{median(run.batch for run in each):.1f}" for each in (greedy, adaptive)),
                    *(f"{halves:.0f}" if connections > 1 else "", f"{bound:.0f}"),
                ]
            )
    return table(head, rows, texts=2)


def loop_results(scale: Scale) -> dict[str, Result[LoopResult]]:
    """Return the closed loops that were measured."""
    return _present(loops(scale), "policies/", scale, LoopResult)


def _line(run: LoopRun) -> Line:
    return Line(run.line.a, run.line.b, MOST)


def _rate(runs: list[LoopRun]) -> float:
    return median(run.loaded.rate for run in runs)


def _rates(runs: list[LoopRun]) -> str:
    found = [run.loaded.rate for run in runs]
    return f"{median(found):.0f} ({min(found):.0f} to {max(found):.0f})"


def _fine(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def answers_by_connections(scale: Scale) -> dict[str, list[tuple[int, float]]]:
    """Return answers a second of the emulated model by connections, for each backend with its defaults."""
    found: dict[str, list[tuple[int, float]]] = {}
    for result in loop_results(scale).values():
        runs = result.measured.runs["greedy"]
        found[result.measured.loop.backend] = [
            (at[0].loaded.connections, median(run.loaded.rate for run in at)) for at in zip(*runs, strict=True)
        ]
    return found
