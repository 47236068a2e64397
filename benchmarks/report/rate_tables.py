"""The table of the open loop: callers that come at random."""

from __future__ import annotations

from benchmarks.latency.plan import rates
from benchmarks.latency.result import Run, pooled
from benchmarks.latency.run import RateResult
from benchmarks.results import Result, read
from benchmarks.scale import Scale
from benchmarks.spread import Spread

from .load_tables import verdict
from .markdown import ms, percent, table

ALIKE = 0.01
"""Shares of failures that differ by less leave latencies comparable."""

HEAD = (
    *("load", "backend", "mean, ms", "p50, ms", "p95, ms", "p99, ms", "p99.9, ms", "answers/s", "failed"),
    *("calls late, ms", "batch", "CPU a call, µs", "memory, MB", "asyncio's mean against threading's"),
)


def rate_results(scale: Scale) -> list[Result[RateResult]]:
    """Return the results that there are, in the order of the plan."""
    found = [read(name, scale, RateResult) for name in rates(scale)]
    return [result for result in found if result is not None]


def rate_table(scale: Scale) -> str:
    """Return both backends at every rate: medians of the repeats, the mean with its smallest and largest."""
    rows = []
    for name in rates(scale):
        result = read(name, scale, RateResult)
        title = name.removeprefix("latency/")
        if result is None:
            rows.append([title, "not measured"])
            continue
        runs = result.measured.runs
        means = [pooled(runs[backend], "mean") for backend in ("threading", "asyncio")]
        shares = [pooled(each, "failed_share").middle for each in runs.values()]
        compared = (
            verdict(*means)
            if max(shares) - min(shares) < ALIKE and all(spread.values for spread in means)
            else "shares of failures differ"
            if all(spread.values for spread in means)
            else "no answers to compare"
        )
        rows += [
            [title, "threading", *_figures(runs["threading"])],
            [title, "asyncio", *_figures(runs["asyncio"]), compared],
        ]
    return table(HEAD, rows, texts=2)


def _figures(runs: list[Run]) -> list[str]:
    mean = pooled(runs, "mean")
    return [
        f"{ms(mean.middle)} ({ms(min(mean.values))} to {ms(max(mean.values))})"
        if mean.values
        else "nobody answered",
        *(_percentile(pooled(runs, field)) for field in ("p50", "p95", "p99", "p999")),
        f"{pooled(runs, 'goodput').middle:.0f}",
        percent(pooled(runs, "failed_share").middle),
        ms(pooled(runs, "lateness").middle),
        f"{Spread(tuple(run.batches.mean for run in runs)).middle:.1f}",
        f"{1e6 * pooled(runs, 'cpu_seconds_per_call').middle:.0f}",
        f"{pooled(runs, 'resident_bytes').middle / 1e6:.0f}",
    ]


def _percentile(spread: Spread) -> str:
    return ms(spread.middle) if spread.values else ""
