"""Which policies are measured where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from benchmarks.latency.run import Place, Rate
from benchmarks.load.run import Backend, ModelCall
from benchmarks.scale import Scale
from benchmarks.theory.bounds import Line
from benchmarks.theory.command import Case

from .closed_loop import POLICIES, Loop
from .lengths import LengthsCase

LINES = {
    "original": Line(0.01099, 0.00001, 200),
    "v100": Line(0.0018874, 0.0001438, 64),
    "steep": Line(0.005, 0.0005, 64),
}
"""The model of the original benchmark; ResNet-50 on a V100, as Inoue 2021 fits it; one whose items cost more."""

RATES = (10, 20, 60, 100, 200, 300, 500, 1000, 2000, 5000, 10_000, 14_000, 15_000)
SHARES = (0.02, 0.1, 0.3, 0.6, 0.9, 0.97)
"""Of the capacity, for the other lines."""

CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DEVICES = 4
DEVICE_SHARES = (0.0065, 0.0195, 0.065, 0.325, 0.65)
"""Rates with several devices, as shares of the capacity of one: 100 to 10 000 a second for the original line."""
OVERLOADS = (1.3, 2.0)
DEADLINE_BATCHES = 50 / 12.99
"""Full batches in the deadline under overload: 50 ms for the original line."""

FEW = 200
"""Calls a second that need a longer run to be enough calls."""

LEAST, BATCHES, MOST = 40_000, 4000, 200_000
"""Items of an open loop: enough for so many batches, between the two."""


def cases(scale: Scale) -> dict[str, Case]:
    """Return the simulated cases by their names. Quick ones are few and short."""
    if scale == "full":
        return {
            f"policies/simulated-{name}-{what}": case
            for name, line in LINES.items()
            for what, case in _cases(line, RATES if name == "original" else _shares(line)).items()
        }
    line = LINES["original"]
    open_loop = {f"policies/simulated-original-poisson-{rate}": _poisson(line, rate, 2000) for rate in (100, 1000)}
    return open_loop | {"policies/simulated-original-clients-8": _case(line, "clients:8", 2000)}


def _shares(line: Line) -> tuple[int, ...]:
    return tuple(round(share * line.capacity) for share in SHARES)


def _cases(line: Line, rates: Sequence[int]) -> dict[str, Case]:
    found = {}
    for rate in rates:
        size = max(1.0, rate * line.a / (1 - rate * line.b))  # of batches, in the mean
        found[f"poisson-{rate}"] = _poisson(line, rate, min(max(LEAST, BATCHES * size), MOST))
    for clients in CLIENTS:
        found[f"clients-{clients}"] = _case(line, f"clients:{clients}", max(LEAST, 400 * clients))
    low, high = round(line.capacity * 0.003), round(line.capacity * 0.2)
    found["bursts"] = _case(line, f"bursts:{low},{high}", 2 * LEAST)
    for share in DEVICE_SHARES:
        rate = round(share * line.capacity)
        found[f"devices-{rate}"] = _case(line, f"poisson:{rate}", 2 * LEAST).model_copy(
            update={"devices": DEVICES}
        )
    for load in OVERLOADS:
        case = _poisson(line, round(load * line.capacity), 6 * LEAST)
        deadline = DEADLINE_BATCHES * line.tau(line.most)
        found[f"overload-{load}"] = case.model_copy(update={"deadline": deadline})
    return found


def _poisson(line: Line, rate: int, items: float) -> Case:
    return _case(line, f"poisson:{rate}", items)


def _case(line: Line, source: str, items: float) -> Case:
    return Case(source=source, a=line.a, b=line.b, most=line.most, items=int(items))


PADDED = {"a 6, b 0.55": (0.006, 0.00055), "a 11, b 0.05": (0.011, 0.00005), "a 2, b 0.02": (0.002, 0.00002)}
"""Seconds of a call, and of each unit of length, of models that pad, named in ms."""


def lengths(scale: Scale) -> dict[str, LengthsCase]:
    """Return the cases with items of different lengths, by their names. Quick ones are few and short."""
    quick = scale == "quick"
    found = {}
    for place, (a, b) in enumerate(PADDED.values()):
        for clients in (32,) if quick else (8, 32, 128):
            case = LengthsCase(a=a, b=b, kind="clients", load=clients, items=2000 if quick else 10_000)
            found[f"policies/lengths-{place}-clients-{clients}"] = case
        for load in (0.9,) if quick else (0.5, 0.9, 1.3):
            case = LengthsCase(a=a, b=b, kind="poisson", load=load, items=2000 if quick else 10_000)
            found[f"policies/lengths-{place}-poisson-{load}"] = case
    return found


def rates(scale: Scale) -> dict[str, Rate]:
    """Return the open loops in real time, by their names. A quick run leaves them out."""
    if scale == "quick":
        return {}
    places: tuple[tuple[Place, tuple[int, ...]], ...] = (
        ("process", (100, 1000)),
        ("http", (100, 1000)),
    )
    return {
        f"policies/open-{place}-{rate}-{policy}": Rate(
            place=place,
            model_call="emulated",
            rate=rate,
            seconds=11.0 if rate < FEW else 6.0,
            settle=1.0,
            repeats=2,
            policy=policy,
        )
        for place, chosen in places
        for rate in chosen
        for policy in POLICIES
    }


def loops(scale: Scale) -> dict[str, Loop]:
    """Return the closed loops behind the server, by their names. A quick run leaves them out."""
    if scale == "quick":
        return {}
    calls: tuple[ModelCall, ...] = ("emulated",)
    return {
        f"policies/closed-{call}-{backend}": Loop(backend=backend, model_call=call, seconds=3, repeats=3)
        for call in calls
        for backend in get_args(Backend)
    }
