"""A batcher under a virtual clock: the library's own core and policies, with arrivals and batch times from a seed.

The same seed gives the same result, bit by bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, nan
from typing import TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from batchers import DeadlineExceededError, Options, QueueFullError
from batchers.core.decisions import Batch, Expire, Run
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err

from .bounds import Line


@dataclass(frozen=True)
class Poisson:
    """Independent callers, `rate` a second."""

    rate: float

    def arrivals(self, chance: random.Random) -> Iterator[float]:
        """Yield times, rising, without end."""
        now = 0.0
        while True:
            now += chance.expovariate(self.rate)
            yield now


@dataclass(frozen=True)
class Bursts:
    """A Markov-modulated Poisson process: `low` and `high` a second, for `span` seconds on average in turns."""

    low: float
    high: float
    span: float = 1.0

    def arrivals(self, chance: random.Random) -> Iterator[float]:
        """Yield times, rising, without end."""
        now, rate, change = 0.0, self.low, chance.expovariate(1 / self.span)
        while True:
            gap = chance.expovariate(rate)
            while now + gap > change:  # the rest of the gap begins anew at the other rate: it has no memory
                now = change
                rate = self.high if rate == self.low else self.low
                change = now + chance.expovariate(1 / self.span)
                gap = chance.expovariate(rate)
            now += gap
            yield now


@dataclass(frozen=True)
class Recorded:
    """Times that were recorded, rising, in seconds."""

    times: tuple[float, ...]

    def arrivals(self, chance: random.Random) -> Iterator[float]:  # noqa: ARG002 - nothing is left to chance
        """Yield them."""
        yield from self.times


@dataclass(frozen=True)
class Clients:
    """A closed loop: each client comes back `least` + Exp(`mean`) seconds after its answer."""

    number: int
    least: float = 0.0003
    mean: float = 0.0003

    def turnaround(self, chance: random.Random) -> float:
        """Return the seconds until one comes back."""
        return self.least + chance.expovariate(1 / self.mean)


@dataclass(frozen=True)
class Service:
    """How long batches take: `line`, with `jitter` (the standard deviation as a share, log-normal).

    `d`: seconds for each unit of length, of each item and its padding. `speed_up` has s(1), s(2), ...: so much
    work k batches do together in a second. Without it, batches in flight are independent.
    """

    line: Line
    jitter: float = 0.0
    speed_up: tuple[float, ...] = ()
    d: float = 0.0

    def work(self, size: int, longest: float, chance: random.Random) -> float:
        """Return the seconds that a batch takes alone."""
        seconds = self.line.tau(size) + self.d * size * longest
        if self.jitter:
            seconds *= chance.lognormvariate(-(self.jitter**2) / 2, self.jitter)
        return seconds

    def speed(self, batches: int) -> float:
        """Return how fast each of so many batches goes on, beside one alone."""
        if not self.speed_up:
            return 1.0
        return self.speed_up[min(batches, len(self.speed_up)) - 1] / batches


Source: TypeAlias = Poisson | Bursts | Recorded | Clients


class Simulated(BaseModel):
    """What came out, after the warm-up. Times are seconds."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    items: int
    mean: float
    p50: float
    p95: float
    p99: float
    """NaN, as the others, when nobody was answered."""
    batch_size: float
    utilisation: float
    """The share of the time in which a batch ran."""
    throughput: float
    """Answers a second."""
    goodput: float
    """Of them, those in time."""
    refused: int
    expired: int
    longest_hold: float
    reasons: dict[str, int]


@dataclass
class _Running:
    left: float  # seconds of work alone
    batch: Batch[int]


@dataclass
class _World:
    core: Core[int, int]
    service: Service
    chance: random.Random
    deadline: float
    lengths: Callable[[random.Random], float] | None = None
    now: float = 0.0
    running: list[_Running] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    busy: float = 0.0
    refused: int = 0
    expired: int = 0
    free_since: float = 0.0
    longest_hold: float = 0.0

    def pass_time(self, until: float) -> None:
        """Let all that runs go on until then."""
        if self.running:
            span = until - self.now
            self.busy += span
            done = span * self.service.speed(len(self.running))
            for each in self.running:
                each.left -= done
        self.now = until

    def next_end(self) -> tuple[float, _Running | None]:
        """Return the time at which the next batch ends, and which."""
        if not self.running:
            return inf, None
        first = min(self.running, key=lambda each: each.left)
        return self.now + max(first.left, 0.0) / self.service.speed(len(self.running)), first

    def offer(self, number: int) -> bool:
        """Let a caller come; return whether it was let in."""
        length = 0.0 if self.lengths is None else self.lengths(self.chance)
        request = Request(number, cost=length, deadline=self.now + self.deadline)
        try:
            self.core.offer((request,), self.now)
        except (QueueFullError, DeadlineExceededError):
            self.refused += 1
            return False
        return True

    def end(self, running: _Running) -> int:
        """End a batch; return how many callers have their answer."""
        if self.core.slots == len(self.running):
            self.free_since = self.now
        self.running.remove(running)
        settled = list(self.core.finish(running.batch, list(running.batch.items), self.now))
        self.latencies += [self.now - request.arrived for request, _ in settled]
        return len(settled)

    def ask(self) -> int:
        """Do what the core says; return how many callers were told that their time is over."""
        gone = 0
        while self.core.due <= self.now:
            decision = self.core.decide(self.now)
            if isinstance(decision, Run):
                longest = max(request.cost for request in decision.batch.requests)
                work = self.service.work(len(decision.batch.requests), longest, self.chance)
                self.running.append(_Running(work, decision.batch))
                oldest = min(request.arrived for request in decision.batch.requests)
                self.longest_hold = max(self.longest_hold, self.now - max(oldest, self.free_since))
            elif isinstance(decision, Expire):
                gone += sum(isinstance(outcome, Err) for _, outcome in decision.settled)
            else:
                break
        self.expired += gone
        return gone


class _Callers:
    """Who comes next, and when."""

    def __init__(self, source: Source, chance: random.Random, most: int) -> None:
        self._source = source
        self._chance = chance
        self._most = most
        self._coming: list[float] = []
        self._times: Iterator[float] = iter(())
        self.number = 0
        if isinstance(source, Clients):
            self.come_back(source.number, 0.0)
        else:
            self._times = source.arrivals(chance)
            self._coming = [next(self._times)]

    @property
    def next_arrival(self) -> float:
        return self._coming[0] if self._coming and self.number < self._most else inf

    def come(self) -> int:
        """Let the next one come, and return its number."""
        heappop(self._coming)
        self.number += 1
        self._coming += [time for time in (next(self._times, None),) if time is not None]
        return self.number

    def come_back(self, count: int, now: float) -> None:
        """So many have their answer, or none."""
        if isinstance(self._source, Clients):
            for _ in range(count):
                heappush(self._coming, now + self._source.turnaround(self._chance))


def simulate(
    options: Options,
    service: Service,
    source: Source,
    *,
    items: int,
    seed: int = 1,
    deadline: float = inf,
    lengths: Callable[[random.Random], float] | None = None,
    warm_up: float = 0.1,
) -> Simulated:
    """Run until so many callers have come; the first `warm_up` part of the time does not count.

    `deadline`: seconds that each caller gives its call. `lengths` returns the length of the next item, for a
    service with `d` and the option `length`.
    """
    chance = random.Random(seed + 1)  # noqa: S311 - to be repeated
    world = _World(Core(options), service, chance, deadline, lengths)
    callers = _Callers(source, random.Random(seed), items)  # noqa: S311
    start, mark = (0.0 if not warm_up else -inf), (0, 0.0, 0)
    while True:
        ends, first = world.next_end()
        when = min(ends, callers.next_arrival, max(world.core.due, world.now))
        if when == inf:
            return _summary(world, start, mark)
        world.pass_time(when)
        if first is not None and ends == when:
            back = world.end(first)
        elif callers.next_arrival == when:
            back = int(not world.offer(callers.come()))
        else:
            back = 0
        callers.come_back(back + world.ask(), world.now)
        if start == -inf and callers.number >= warm_up * items:
            start, mark = world.now, (len(world.latencies), world.busy, world.core.stats().batches)


def _summary(world: _World, start: float, mark: tuple[int, float, int]) -> Simulated:
    answered, busy, batches = mark
    latencies = np.asarray(world.latencies[answered:])
    stats = world.core.stats()
    seconds = world.now - start
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist() if len(latencies) else [nan] * 3
    in_time = int((latencies <= world.deadline).sum())
    return Simulated(
        items=len(latencies),
        mean=float(latencies.mean()) if len(latencies) else nan,
        p50=p50,
        p95=p95,
        p99=p99,
        batch_size=len(latencies) / max(stats.batches - batches, 1),
        utilisation=(world.busy - busy) / seconds,
        throughput=len(latencies) / seconds,
        goodput=in_time / seconds,
        refused=world.refused,
        expired=world.expired,
        longest_hold=world.longest_hold,
        reasons={reason: number for reason, number in stats.reasons.items() if number},
    )
