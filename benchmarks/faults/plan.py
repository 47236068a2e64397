"""Which faults befall whom, how much of each, and what is promised then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks import fresh
from benchmarks.fresh import MeasurementError
from benchmarks.scale import Scale

from . import hostile, items, kills, overload, slow, soak, stops, streams
from .result import OURS, PEERS, SUBJECTS, Fault, FaultResult


@dataclass(frozen=True)
class Range:
    """What a figure is to be."""

    most: float | None = None
    least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether it is."""
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        """In words."""
        if self.most == 0:
            return "0"
        words = []
        if self.least is not None:
            words.append(f"at least {self.least:g}")
        if self.most is not None:
            words.append(f"at most {self.most:g}")
        return " and ".join(words)


NONE = Range(most=0)

MUTANTS = "faults/mutants"
"""The name of the measurement that is about no subject."""


@dataclass(frozen=True)
class Scenario:
    """One of the table."""

    words: str
    run: Callable[[Fault], FaultResult]
    size: int
    quick: int
    """0: a quick run leaves it out."""
    peers: int
    """The size for peers: smaller, where each of their failures takes time to be seen. 0: not for them."""
    seconds: float
    """That one takes at full size, roughly."""
    promised: Mapping[str, Range]


def _in_process(module: str, limit: float, fault: Fault) -> FaultResult:
    return fresh.module(f"benchmarks.faults.{module}", fault, FaultResult, seconds=limit)


A_CLEAN_END = {
    "accepted, but no answer": NONE,
    "other answers": NONE,
    "slowest end, s": Range(most=stops.GRACE),
    "ended with a status other than 0": NONE,
}

CALLS_PROMISED = dict.fromkeys(
    (
        *("no outcome", "ended without a cause", "wrong answers", "failed with others", "run twice"),
        *("refused, but run", "counters that do not add up", "unexpected errors logged", "tasks left"),
        *("threads left", "descriptors left", "items left"),
    ),
    NONE,
)

SCENARIOS = {
    "calls": Scenario(
        "calls at random: cancelled, failed, expired, stopped",
        partial(_in_process, "calls", 1800.0),
        size=1_000_000,
        quick=20_000,
        peers=20_000,
        seconds=90.0,
        promised=CALLS_PROMISED,
    ),
    "field": Scenario(
        "the same in hard programs: re-entering log handlers, dying workers, recursion, broken pools",
        partial(_in_process, "field", 1800.0),
        size=1_000_000,
        quick=20_000,
        peers=3_000,
        seconds=60.0,
        promised=CALLS_PROMISED,
    ),
    "items": Scenario(
        "very many items",
        partial(_in_process, "items", items.SECONDS),
        size=2_000_000,
        quick=100_000,
        peers=2_000_000,
        seconds=30.0,
        promised={"growth until the end, MB": Range(most=5.0)},
    ),
    "sigterm": Scenario(
        "SIGTERM at random moments, 50 clients",
        partial(stops.run, workers=1),
        size=20,
        quick=1,
        peers=20,
        seconds=100.0,
        promised=A_CLEAN_END,
    ),
    "sigterm-two": Scenario(
        "the same with two workers",
        partial(stops.run, workers=2),
        size=10,
        quick=0,
        peers=0,
        seconds=60.0,
        promised=A_CLEAN_END,
    ),
    "kill": Scenario(
        "kill -9 of one of two workers, 200 clients",
        kills.run,
        size=5,
        quick=0,
        peers=0,
        seconds=170.0,
        promised={
            "failed, of others": NONE,
            "rate from 2 s to 8 s, against before": Range(least=0.9),
            "workers at the end, fewest": Range(least=2),
        },
    ),
    "overload": Scenario(
        "ten times the capacity, open loop, queue of 64",
        overload.run,
        size=40,
        quick=0,
        peers=40,
        seconds=75.0,
        promised={
            "answered, share of the capacity": Range(least=0.9),
            "p99 / (queue time + 2 batches)": Range(most=1.03),
            "without Retry-After, of these": NONE,
            "clients that left after 2 s": NONE,
            "no answer, or another": NONE,
            "processor time of a refusal, ms": Range(most=1.0),
            "until latencies are as before, s": Range(most=5.0),
            "memory grew after the first quarter, MB": Range(most=5.0),
        },
    ),
    "storm": Scenario(
        "clients that retry when they are refused",
        overload.storm,
        size=6,
        quick=0,
        peers=0,
        seconds=75.0,
        promised={
            overload.words_of(number, waits=waits)[0]: Range(least=0.9)
            for number in overload.RETRIERS[1:]
            for waits in (False, True)
        },
    ),
    "hostile": Scenario(
        "hostile bodies, and neighbours in the same batches",
        hostile.run,
        size=40_000,
        quick=5000,
        peers=10_000,
        seconds=40.0,
        promised=dict.fromkeys(
            (
                *("status 5xx", "no answer within a second", "connection closed without an answer"),
                *("connection refused or reset", hostile.OTHER, "neighbours harmed"),
            ),
            NONE,
        ),
    ),
    "streams": Scenario(
        "hostile bytes on the socket, beside uvicorn's own protocol",
        streams.run,
        size=30_000,
        quick=0,
        peers=0,
        seconds=75.0,
        promised={streams.DIFFERENT: NONE},
    ),
    "slow": Scenario(
        "200 slow clients, and a normal one",
        slow.run,
        size=5,
        quick=0,
        peers=5,
        seconds=60.0,
        promised={"failures of these": NONE, "p99 among slow ones, against alone": Range(most=2.0)},
    ),
    "soak": Scenario(
        "a long life: 70 % load, one batch in ten fails, clients leave",
        soak.run,
        size=1200,
        quick=0,
        peers=0,
        seconds=1205.0,
        promised={name: Range(most=most) for name, most in soak.LIMITS.items()},
    ),
}


def faults(scale: Scale) -> dict[str, Fault]:
    """Return the measurements by their names. A quick run leaves the peers out."""
    found = {}
    for name, scenario in SCENARIOS.items():
        for subject in SUBJECTS:
            size = scenario.peers if subject in PEERS else scenario.size
            if scale == "quick":
                size = 0 if subject in PEERS else scenario.quick
            if size:
                found[f"faults/{name}-{subject}"] = Fault(scenario=name, subject=subject, size=size)
    return found


def estimate(fault: Fault) -> float:
    """Return the seconds that it takes, roughly."""
    scenario = SCENARIOS[fault.scenario]
    if fault.subject in PEERS and scenario.peers < scenario.size:
        return scenario.seconds  # each of their failures takes time to be seen
    return scenario.seconds * fault.size / scenario.size + 5.0


def measure(fault: Fault) -> FaultResult:
    """Let it happen. The result says if a peer is not installed, or does not serve.

    MeasurementError for one of this project's that fails.
    """
    try:
        return SCENARIOS[fault.scenario].run(fault)
    except MeasurementError as error:
        if fault.subject in OURS:
            raise
        return FaultResult(fault=fault, figures={}, failed=str(error))
