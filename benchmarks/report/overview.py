"""The short tables of BENCHMARK.md: words instead of names of rows, and few digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import get_args

from benchmarks.faults.plan import SCENARIOS
from benchmarks.faults.result import SUBJECTS, FaultResult
from benchmarks.lengths.result import ONE_BY_ONE, TextsResult
from benchmarks.load.plan import ORIGINALS
from benchmarks.load.run import Backend, LoadResult, ModelCall
from benchmarks.peers.replicas import VARIANTS, ReplicaResult, names
from benchmarks.results import Result, provenance, read
from benchmarks.scale import Scale
from benchmarks.spread import TWICE, clearly_differ

from .advice import advice_table
from .fault_tables import GOODPUT, NAMES, broken_promises, fault_results, outside
from .load_tables import failures_start, originals, tops
from .markdown import MISSING, about, table
from .micro_tables import micro_results
from .peer_tables import rates_of, server_results

CONNECTIONS = 64
"""With which servers are compared on the short page."""


def scale_sentence(scale: Scale) -> str:
    """Return the scale, the machines, and the commit or the number of commits."""
    found = [each.environment for each in provenance(scale)]
    if not found:
        return f"Scale: *{scale}*. Nothing was measured yet.\n"
    commits = sorted({each.commit for each in found})
    where = "; ".join(dict.fromkeys(each.caption.removesuffix(f", commit {each.commit}") for each in found))
    code = (
        f"commit {commits[0]}"
        if len(commits) == 1
        else f"{len(commits)} commits, listed in [methods](docs/benchmarks/methods.md)"
    )
    return f"Scale: *{scale}*. Measured on {where}; {code}.\n"


# The original report


ORIGINAL_WORDS = {
    "predict": "no batcher (`/predict`)",
    "optimized_predict": "`threading`, ramp of v0.1.0",
    "optimized_predict_v0.2.0": "`asyncio`, ramp of v0.2.0",
}


def original_answers(scale: Scale) -> str:
    """Return what the original report asks of its three measurements."""
    found = originals(scale)
    rows = [[ORIGINAL_WORDS[name], *_answers(found.get(name))] for name in ORIGINALS]
    return table(
        ("server", "failures start at", "failed at the end", "mean at the end, ms", "p95 at the end, ms"), rows
    )


def _answers(result: Result[LoadResult] | None) -> list[str]:
    if result is None:
        return [MISSING]
    top = result.measured.top
    start = failures_start(result.measured.seconds)
    return [
        "never" if start is None else f"{about(start)} requests/s",
        f"{100 * top.failures_per_second / top.requests_per_second:.0f} %",
        about(1000 * top.mean),
        about(1000 * top.p95),
    ]


CALL_WORDS: dict[ModelCall, str] = {
    "emulated": "the emulated model",
    "compiled": "the compiled Keras model",
    "keras": "the Keras model by `model.predict`",
}


def difference_sentence(scale: Scale) -> str:
    """Say which backend is slower, where that is clear."""
    clear, alike = [], []
    for call in get_args(ModelCall):
        threading, asyncio = (tops(scale, call, backend, "mean") for backend in get_args(Backend))
        if not threading.values or not asyncio.values:
            return f"The two backends: {MISSING}.\n"
        if min(len(threading.values), len(asyncio.values)) < TWICE:
            return "The two backends were measured once, which says nothing about their difference.\n"
        if clearly_differ(threading, asyncio):
            means = (f"{about(1000 * spread.middle)} ms" for spread in (threading, asyncio))
            clear.append(
                f"with {CALL_WORDS[call]}, the mean latency is {next(means)} on `threading` and {next(means)} on "
                "`asyncio`"
            )
        else:
            alike.append(CALL_WORDS[call])
    said = [f"{'; '.join(clear)}."] if clear else []
    if alike:
        models = " and with ".join(alike)
        said.append(
            f"With {models}, the difference between the backends is smaller than between two runs of one backend."
        )
    return " ".join(part[0].upper() + part[1:] for part in said) + "\n"


# Servers, calls, lengths, more processes


SERVER_WORDS = {
    "batchers, asyncio": "**batchers, `asyncio`**",
    "batchers, threading": "**batchers, `threading`**",
    "batchers, asyncio, through ASGI": "batchers, `asyncio`, without the direct path",
    "batchers, no batcher": "batchers' server, without a batcher",
    "batchers, asyncio, 2 processes": "batchers, `asyncio`, 2 models",
    "batchers, asyncio, 2 front ends": "batchers, 2 front ends and 1 model",
    "batchers, asyncio, 1 front end": "batchers, 1 front end and 1 model",
    "mosec": "mosec, 1 model",
    "mosec, 2 processes": "mosec, 2 models",
    "async-batcher": "async-batcher, in FastAPI",
    "batchers, in async-batcher's route": "batchers, in async-batcher's route",
    "LitServe": "LitServe",
    "BentoML": "BentoML",
    "Ray Serve": "Ray Serve",
}
"""Those of the short page."""


def servers_in_short(scale: Scale) -> str:
    """Return the servers, the fastest first."""
    found = server_results(scale, SERVER_WORDS)
    rows = []
    for server, repeats in found.items():
        rates = [rates_of(repeats, number) for number in (1, CONNECTIONS, 256)]
        if all(rate.values for rate in rates):
            memory = median(each.measured.resident_bytes for each in repeats if not each.measured.failed)
            figures = [about(rate.middle) for rate in rates]
            rows.append((rates[1].middle, [SERVER_WORDS[server], *figures, about(memory / 1e6)]))
        else:
            rows.append((0.0, [SERVER_WORDS[server], "failed"]))
    if not rows:
        return f"Servers: {MISSING}.\n"
    rows.sort(key=lambda row: -row[0])
    head = ("requests/s", "1 connection", f"{CONNECTIONS} connections", "256 connections", "memory, MB (RSS)")
    return table(head, (row for _, row in rows))


CALL_SIDES = {
    "asyncio-async": "batchers, `asyncio`",
    "threading-sync": "batchers, `threading`",
    "async-batcher": "async-batcher",
    "batched": "batched",
    "aiodataloader": "aiodataloader",
    "bentoml": "BentoML's dispatcher",
}

CALL_GROUPS = {
    "coroutines-1": "1 coroutine",
    "coroutines-64": "64 coroutines",
    "coroutines-1000": "1000 coroutines",
    "threads-64": "64 threads",
}


def calls_in_short(scale: Scale) -> str:
    """Return what a call costs."""
    results = micro_results(scale)
    if not results:
        return f"Calls: {MISSING}.\n"

    def cost(group: str, side: str) -> str:
        found = results.get(f"micro/{group}")
        if found is None or side not in found.seconds_per_item:
            return ""
        return about(1e6 * found.spread(side).middle)

    rows = [[words, *(cost(group, side) for group in CALL_GROUPS)] for side, words in CALL_SIDES.items()]
    floors = [
        "no features (the floor)",
        *(cost(group, "asyncio-floor") or cost(group, "floor") for group in CALL_GROUPS),
    ]
    return table(["µs a call", *CALL_GROUPS.values()], [*rows, floors])


LENGTH_WORDS = {
    "one by one": "without a batcher",
    "in order": "batches in order of arrival",
    "threading": "`length=len`, `threading`",
    "asyncio": "`length=len`, `asyncio`",
    "clairvoyant": "a rule that knows the model's costs beforehand",
}


def lengths_in_short(scale: Scale) -> str:
    """Return texts a second by rule."""
    found = read("lengths/texts", scale, TextsResult)
    if found is None:
        return f"Texts: {MISSING}.\n"
    closed = found.measured.closed
    alone = median(closed[ONE_BY_ONE])
    rows = [
        [
            LENGTH_WORDS[rule],
            f"{about(median(rates))} ({about(min(rates))} to {about(max(rates))})",
            about(median(rates) / alone),
        ]
        for rule, rates in closed.items()
    ]
    return table(("rule", "texts/s (smallest to largest)", "against the first row"), rows)


def ray_in_short(scale: Scale) -> str:
    """Return answers a second in Ray Serve."""
    found = [(variant, read(name, scale, ReplicaResult)) for name, variant in names(scale).items()]
    loads = [(variant, load) for variant, result in found if result is not None for load in result.measured.loads]
    if not loads:
        return f"Ray Serve: {MISSING}.\n"
    rows = []
    for callers in sorted({load.callers for _, load in loads}):
        row = [f"{callers}"]
        for variant in VARIANTS:
            rates = [load.rate for each, load in loads if each == variant and load.callers == callers]
            row.append(about(median(rates)) if rates else "")
        rows.append(row)
    return table(("callers", *(f"`{variant}`, answers/s" for variant in VARIANTS)), rows)


# When things break


ANSWERLESS = "accepted, but no answer"


LOST: Sequence[tuple[str, str, tuple[str, ...], str]] = (
    ("calls", "no outcome", ("calls",), "calls without an outcome: neither a result nor an error (random calls)"),
    (
        "field",
        "no outcome",
        ("calls",),
        "the same in hard programs: dying workers, recursion, re-entering log handlers",
    ),
    ("calls", "wrong answers", ("calls",), "results that belong to another caller (random calls)"),
    ("sigterm", ANSWERLESS, ("answered", ANSWERLESS), "accepted requests without an answer after SIGTERM"),
    ("hostile", "status 5xx", ("bodies",), "server errors for hostile bodies"),
)
"""Scenario, figure, the figures that it is a part of, and words."""


def faults_in_short(scale: Scale) -> str:
    """Return what callers lose."""
    measured = fault_results(scale)
    if not measured:
        return f"What is lost: {MISSING}.\n"
    rows = []
    for scenario, figure, whole, words in LOST:
        results = [measured.get(scenario, {}).get(subject) for subject in SUBJECTS]
        rows.append([words, *(_lost(result, figure, whole) for result in results)])
    scenario, figure, words = GOODPUT
    results = [measured.get(scenario, {}).get(subject) for subject in SUBJECTS]
    rows.append([words, *(_share(result, figure) for result in results)])
    return table(["", *(NAMES[subject] for subject in SUBJECTS)], rows)


def _lost(result: FaultResult | None, figure: str, whole: Sequence[str]) -> str:
    if result is None or figure not in result.figures:
        return "failed" if result is not None and result.failed else ""
    of = sum(result.figures.get(part, 0.0) for part in whole)
    return f"{_count(result.figures[figure])} of {_count(of)}"


def _share(result: FaultResult | None, figure: str) -> str:
    if result is None or figure not in result.figures:
        return "failed" if result is not None and result.failed else ""
    return f"{about(100 * result.figures[figure])} %"


def _count(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def promises_in_short(scale: Scale) -> str:
    """Say which promises are not kept."""
    known = sum(
        figure in results[subject].figures
        for name, results in fault_results(scale).items()
        for subject in get_args(Backend)
        if subject in results
        for figure in SCENARIOS[name].promised
    )
    if not known:
        return f"Promises: {MISSING}.\n"
    broken = [
        f"`{subject}`, {PROMISE_WORDS.get(name, SCENARIOS[name].words)}: {FIGURE_WORDS.get(figure, figure)} is "
        f"{outside(value, promised)}, and its limit is {promised}"
        for name, subject, figure, value, promised in broken_promises(scale)
    ]
    listed = "[all rows](docs/benchmarks/faults.md)"
    head = f"In {listed}, {known} figures have a limit, and {known - len(broken)} of them keep it"
    return (
        f"{head}{'. The others:' if broken else '.'}\n"
        + "".join(f"\n* {each}" for each in broken)
        + "\n" * bool(broken)
    )


PROMISE_WORDS = {
    "field": "hard programs",
    "kill": "kill -9 of one of two workers",
    "overload": "ten times the capacity",
}
FIGURE_WORDS = {
    "p99 / (queue time + 2 batches)": "the p99, divided by the queue time and two batches,",
    "rate from 2 s to 8 s, against before": "the rate from 2 s to 8 s after the kill, against the rate before,",
    "unexpected errors logged": "the number of unexpected errors that were logged",
}


OVERVIEW: dict[str, Callable[[Scale], str]] = {
    "scale": scale_sentence,
    "advice": advice_table,
    "original-answers": original_answers,
    "difference": difference_sentence,
    "servers-in-short": servers_in_short,
    "calls-in-short": calls_in_short,
    "lengths-in-short": lengths_in_short,
    "ray-in-short": ray_in_short,
    "faults-in-short": faults_in_short,
    "promises-in-short": promises_in_short,
}
