"""The table of advice, with which BENCHMARK.md begins: what to take, and what it gains."""

from __future__ import annotations

from statistics import median
from typing import get_args

from benchmarks.faults.result import OURS as BACKENDS
from benchmarks.faults.result import FaultResult
from benchmarks.lengths.result import IN_ORDER, ONE_BY_ONE, OURS, TextsResult
from benchmarks.load.run import Backend
from benchmarks.results import read
from benchmarks.scale import Scale

from .fault_tables import GOODPUT, fault_results
from .load_tables import failures_start, originals, tops
from .markdown import MISSING, about, table
from .micro_tables import micro_results
from .policy_tables import simulated_of


def advice_table(scale: Scale) -> str:
    """Return what to take, and what it gains."""
    rows = [
        (
            "coroutines that call (FastAPI, aiohttp), and one device such as a GPU",
            "`asyncio`, defaults",
            _gain_of_batching(scale),
        ),
        (
            "threads that call (Flask, Django), and one device",
            "`threading`, defaults",
            _gain_of_threads(scale),
        ),
        (
            "several devices",
            "either; `concurrency=` their number, `policy=Adaptive()`",
            _gain_of_spacing(scale),
        ),
        (
            "texts of different lengths, and a model that pads",
            "either; `length=len`",
            _gain_of_lengths(scale),
        ),
        (
            "clients that give up after a time, or retry",
            "either; `max_queue_size` as below, `timeout=` the time that callers wait, `policy=Adaptive()`",
            _gain_of_deadlines(scale),
        ),
    ]
    return table(("you have", "take", "you gain"), rows, texts=3)


def _gain_of_batching(scale: Scale) -> str:
    alone = originals(scale).get("predict")
    backends = get_args(Backend)
    means = [tops(scale, "emulated", backend, "mean") for backend in backends]
    rates = [tops(scale, "emulated", backend, "requests_per_second") for backend in backends]
    if alone is None or not all(mean.values for mean in means):
        return MISSING
    start = failures_start(alone.measured.seconds)
    lost = f"fails from {about(start)} requests/s on" if start else "does not fail"
    rate, mean = min(rate.middle for rate in rates), max(mean.middle for mean in means)
    gained = f"{about(rate)} requests/s at a mean of {about(1000 * mean)} ms, on either backend (emulated model)"
    return f"{gained}; without a batcher the same model {lost}"


def _gain_of_threads(scale: Scale) -> str:
    found = micro_results(scale).get("micro/threads-64")
    if found is None or not {"threading-sync", "asyncio-sync"} <= found.seconds_per_item.keys():
        return MISSING
    own, other = (1e6 * found.spread(side).middle for side in ("threading-sync", "asyncio-sync"))
    return f"the same; with 64 threads a call costs {about(own)} µs, and {about(other)} µs on `asyncio`"


def _gain_of_spacing(scale: Scale) -> str:
    found = [result.policies for _, _, result in simulated_of(scale, "devices")]
    if not found:
        return MISSING
    gains = [100 * (1 - each["adaptive"].mean / each["greedy"].mean) for each in found]
    least, most = min(gains), max(gains)
    worst = f"at worst {about(-least, 1)} % more" if least < 0 else "never more"
    return (
        f"up to {about(most)} % less mean latency than with the default policy; {worst} (four devices, simulated "
        f"in {len(found)} cases)"
    )


def _gain_of_lengths(scale: Scale) -> str:
    found = read("lengths/texts", scale, TextsResult)
    if found is None:
        return MISSING
    rates = {rule: median(values) for rule, values in found.measured.closed.items()}
    own = min(rates[rule] for rule in OURS) / rates[ONE_BY_ONE]
    worse = rates[IN_ORDER] / rates[ONE_BY_ONE]
    gained = (
        f"{about(own)} times as many texts/s as without a batcher; with batches but no `length`, "
        f"{about(worse)} times as many"
    )
    return f"{gained} (one model, on one core)"


def _gain_of_deadlines(scale: Scale) -> str:
    found = {load: result for line, load, result in simulated_of(scale, "overload") if line == "original"}
    scenario, figure, _ = GOODPUT
    shares = [measured.figures[figure] for measured in _ours(scale, scenario) if figure in measured.figures]
    if TWICE_TOO_MANY not in found or not shares:
        return MISSING
    result = found[TWICE_TOO_MANY]
    greedy, adaptive = (
        result.policies[policy].goodput / result.case.line.capacity for policy in ("greedy", "adaptive")
    )
    return (
        "at ten times the capacity and with a queue of 64, the server answers "
        f"{about(100 * min(*shares, 1.0))} % of its capacity in time; simulated at twice the capacity with an "
        f"unbounded queue, {about(100 * min(adaptive, 1.0), 3)} % with `Adaptive()`, {about(100 * greedy)} % with "
        "the default policy"
    )


TWICE_TOO_MANY = "2.0"
"""The load of a simulated case, as its name has it."""


def _ours(scale: Scale, scenario: str) -> list[FaultResult]:
    found = fault_results(scale).get(scenario, {})
    return [found[subject] for subject in BACKENDS if subject in found]
