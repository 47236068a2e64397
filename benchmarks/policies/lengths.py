"""Items of different lengths on one device that pads: simple rules, the option `length`, and a clairvoyant rule.

A batch of n items takes a + b * n * longest seconds. Four of five items have 4 to 12 words, the others 60 to 150.
In a closed loop each client comes back after Exp(0.5 ms). In an open loop callers come at random, at a share of
what one call for each item can do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf
from typing import Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from batchers import Options
from batchers.core.decisions import Run
from batchers.core.group_queue import Request
from batchers.core.machine import Core

from .padding import MEAN_LENGTH, MOST, clairvoyant_batch, length_of

THINK = 0.0005
"""Seconds, in the mean, until a client comes back."""

GIVEN_UP = 4000
"""Waiting items at which an open loop counts as one that does not keep up."""

LEFT = 0.05
"""The share of the items above which those that wait at the end show the same."""

Kind: TypeAlias = Literal["clients", "poisson"]

Waiting: TypeAlias = Sequence[float]
"""The lengths of the items that wait, oldest first."""


class LengthsCase(BaseModel):
    """One model and one load: so many clients, or a share of what one call for each item can do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: float
    b: float
    kind: Kind
    load: float
    items: int
    seed: int = 1

    def tau(self, size: int, longest: float) -> float:
        """Return the seconds of a batch."""
        return self.a + self.b * size * longest


class Served(BaseModel):
    """What a rule did: items a second, and seconds from arrival to answer. `kept_up`: the queue stayed short."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    throughput: float
    mean: float
    p99: float
    padding: float
    """The share of the padded lengths."""
    kept_up: bool


class LengthsResult(BaseModel):
    """All rules in one case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: LengthsCase
    rules: dict[str, Served]


# Simple rules: which of the waiting items go next, by their places. The oldest is one of them.


def one_by_one(waiting: Waiting, case: LengthsCase) -> list[int]:  # noqa: ARG001 - as the others
    """Take the oldest alone."""
    return [0]


def in_order(waiting: Waiting, case: LengthsCase) -> list[int]:  # noqa: ARG001 - as above
    """Take the oldest ones."""
    return list(range(min(MOST, len(waiting))))


def by_power_of_two(waiting: Waiting, case: LengthsCase) -> list[int]:  # noqa: ARG001 - as above
    """Take those whose length has as many binary digits as the oldest one's."""
    digits = int(waiting[0]).bit_length()
    return [place for place, length in enumerate(waiting) if int(length).bit_length() == digits][:MOST]


def nearest(share: float) -> Callable[[Waiting, LengthsCase], list[int]]:
    """Return the rule that takes the nearest lengths while at most this share is padding."""

    def rule(waiting: Waiting, case: LengthsCase) -> list[int]:  # noqa: ARG001 - as above
        head = waiting[0]
        taken, total, longest = [0], head, head
        for place in sorted(range(1, len(waiting)), key=lambda each: abs(waiting[each] - head)):
            more, most = total + waiting[place], max(longest, waiting[place])
            if len(taken) < MOST and 1 - more / (most * (len(taken) + 1)) <= share:
                taken.append(place)
                total, longest = more, most
        return taken

    return rule


def most_useful(waiting: Waiting, case: LengthsCase) -> list[int]:
    """Take the set with the most useful work a second: a + b * its own length for each item."""
    head = waiting[0]
    order = sorted(range(1, len(waiting)), key=lambda place: -waiting[place])
    best, found = 0.0, [0]
    for longest in sorted({length for length in waiting if length >= head}):
        taken, work = [0], case.a + case.b * head
        for place in order:
            if waiting[place] > longest:
                continue
            more = work + case.a + case.b * waiting[place]
            if len(taken) == MOST or more / case.tau(len(taken) + 1, longest) <= work / case.tau(
                len(taken), longest
            ):
                break
            taken.append(place)
            work = more
        rate = work / case.tau(len(taken), max(waiting[place] for place in taken))
        if rate > best:
            best, found = rate, taken
    return found


def clairvoyant(waiting: Waiting, case: LengthsCase) -> list[int]:
    """Divide what waits into the batches that take the least time, knowing a and b; take that of the oldest."""
    return clairvoyant_batch(waiting, lambda sizes, longest: case.a + case.b * longest * sizes)


SIMPLE: dict[str, Callable[[Waiting, LengthsCase], list[int]]] = {
    "one by one": one_by_one,
    "in order": in_order,
    "groups by power of two": by_power_of_two,
    "nearest, 20 % padding": nearest(0.2),
    "nearest, 50 % padding": nearest(0.5),
    "most useful work": most_useful,
}
OURS = "length"
CLAIRVOYANT = "clairvoyant"


class _Simple:
    """A queue with a simple rule."""

    def __init__(self, rule: Callable[[Waiting, LengthsCase], list[int]], case: LengthsCase) -> None:
        self._rule, self._case = rule, case
        self._waiting: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, number: int, length: float, now: float) -> None:  # noqa: ARG002 - as `_Batcher.add`
        self._waiting.append((length, number))

    def start(self, now: float) -> list[tuple[float, int]]:  # noqa: ARG002 - as above
        places = set(self._rule([length for length, _ in self._waiting], self._case))
        batch = [self._waiting[place] for place in sorted(places)]
        self._waiting = [each for place, each in enumerate(self._waiting) if place not in places]
        return batch

    def end(self, now: float) -> None:
        pass


class _Batcher:
    """The library's own core, with the option `length`."""

    def __init__(self) -> None:
        self._core: Core[int, int] = Core(Options(max_batch_size=MOST, max_queue_size=-1, length=float))
        self._running: Run[int] | None = None

    def __len__(self) -> int:
        return self._core.queued

    def add(self, number: int, length: float, now: float) -> None:
        self._core.offer_one(Request(number, cost=length), now)

    def start(self, now: float) -> list[tuple[float, int]]:
        decision = self._core.decide(now)
        if not isinstance(decision, Run):
            raise TypeError(decision)
        self._running = decision
        return [(request.cost, request.number - 1) for request in decision.batch.requests]

    def end(self, now: float) -> None:
        if self._running is not None:
            self._core.finish(self._running.batch, list(self._running.batch.items), now)


def _served(case: LengthsCase, name: str) -> Served:
    """Let a rule serve so many items."""
    chance = random.Random(case.seed)  # noqa: S311 - to be repeated
    rule = clairvoyant if name == CLAIRVOYANT else SIMPLE.get(name)
    queue: _Simple | _Batcher = _Batcher() if rule is None else _Simple(rule, case)
    closed = case.kind == "clients"
    rate = 1.0 if closed else case.load / case.tau(1, MEAN_LENGTH)
    coming = (
        [chance.expovariate(1 / THINK) for _ in range(int(case.load))] if closed else [chance.expovariate(rate)]
    )
    coming.sort()
    arrived: list[float] = []
    latencies: list[float] = []
    now = useful = padded = 0.0
    while len(latencies) < case.items:
        while coming and coming[0] <= now:
            time = heappop(coming)
            queue.add(len(arrived), length_of(chance), time)
            arrived.append(time)
            if not closed:
                coming.append(time + chance.expovariate(rate))
        if not len(queue):
            now = coming[0]
            continue
        if len(queue) > GIVEN_UP:
            return Served(throughput=len(latencies) / now, mean=inf, p99=inf, padding=0.0, kept_up=False)
        batch = queue.start(now)
        longest = max(length for length, _ in batch)
        now += case.tau(len(batch), longest)
        queue.end(now)
        useful += sum(length for length, _ in batch)
        padded += longest * len(batch)
        latencies += [now - arrived[number] for _, number in batch]
        if closed:
            for _ in batch:
                heappush(coming, now + chance.expovariate(1 / THINK))
    counted = np.array(latencies[len(latencies) // 10 :])  # without the start
    return Served(
        throughput=len(latencies) / now,
        mean=float(counted.mean()),
        p99=float(np.percentile(counted, 99)),
        padding=1 - useful / padded,
        kept_up=closed or len(queue) < LEFT * case.items,
    )


def measure(case: LengthsCase) -> LengthsResult:
    """Let each rule serve the same case."""
    return LengthsResult(case=case, rules={name: _served(case, name) for name in (*SIMPLE, OURS, CLAIRVOYANT)})
