"""Seeded days of a core whose policy learns, and what was decided on each of them, in `days.json`.

`python -m tests.policies.days` lives them again and writes the file anew: for a change of a rule that is meant,
after a look at what it changes in the reasons and the numbers of batches. No arithmetic here depends on the
machine: there are only sums, products, quotients and square roots of floats.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import random
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from batchers import Adaptive, DeadlineExceededError, Options, QueueFullError
from batchers.core.decisions import Batch, Expire, Run
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Failed

from .devices import SEEDS, some_slots

FILE = Path(__file__).with_suffix(".json")
LINES = 50
"""Decisions that share a digest."""


@dataclass(frozen=True)
class Day:
    """What comes, how long batches take, and what goes wrong."""

    options: dict[str, Any]
    items: int = 6000
    a: float = 0.010
    b: float = 0.0001
    noise: float = 0.1
    """Batches take up to so much more or less, as a share."""
    clients: int = 0
    """Callers of a closed loop; they come back within `back` to twice `back` seconds."""
    back: float = 0.0003
    gap: float = 0.001
    """Without clients: seconds between two arrivals, in the mean."""
    change: float = 1.0
    """From the middle of the day on all takes so many times as long, and half as many come."""
    speeds: tuple[float, ...] = ()
    """The work of 1, 2, ... batches together in a second; without it they do not disturb each other."""
    fails: float = 0.0
    """The share of batches that fail."""
    deadline: float = inf
    others: float = 0.0
    """With clients: seconds between two arrivals of callers that come once, in the mean. 0: nobody else comes."""
    tick: float = 0.0
    """Everything happens at multiples of this, so that times are often equal."""


DAYS = {
    "a cohort": Day({"policy": Adaptive()}, clients=8),
    "a cohort that comes back slowly": Day({"policy": Adaptive()}, clients=8, back=0.004, noise=0.5),
    "a cohort that is better left alone": Day({"policy": Adaptive()}, clients=8, back=0.02, a=0.006),
    "a cohort whose batches are full": Day({"policy": Adaptive(), "max_batch_size": 8}, clients=20),
    "a cohort whose cost is full": Day(
        {"policy": Adaptive(), "cost": lambda number: 1 + number % 3, "max_batch_cost": 12}, clients=16
    ),
    "a cohort that changes": Day({"policy": Adaptive()}, clients=64, change=4.0, items=12_000),
    "a cohort with short holds": Day({"policy": Adaptive(max_hold=0.0007)}, clients=12),
    "strangers": Day({"policy": Adaptive()}, gap=0.002, change=3.0),
    "few strangers": Day({"policy": Adaptive()}, gap=0.02, items=2000),
    "batches that fail": Day({"policy": Adaptive(), "on_error": "bisect"}, clients=12, fails=0.02),
    "groups": Day({"policy": Adaptive(), "group_by": lambda number: number % 3}, clients=12),
    "several devices": Day({"policy": Adaptive(), "concurrency": 3}, gap=0.002, items=3000),
    "several devices, hardly loaded": Day({"policy": Adaptive(), "concurrency": 4}, gap=0.008, items=2000),
    "several devices, short holds": Day(
        {"policy": Adaptive(max_hold=0.002), "concurrency": 3}, gap=0.002, items=3000
    ),
    "deadlines": Day({"policy": Adaptive(), "max_batch_size": 64}, gap=0.00012, deadline=0.04, items=6000),
    "deadlines that are too short": Day({"policy": Adaptive(latency_target=0.008)}, gap=0.003, items=2000),
    "deadlines of a model that varies": Day(
        {"policy": Adaptive(), "max_batch_size": 32}, gap=0.0006, noise=0.9, b=0.0003, deadline=0.06, change=1.7
    ),
    "deadlines of a model that gets faster": Day(
        {"policy": Adaptive(), "max_batch_size": 32}, gap=0.0006, noise=0.3, b=0.0003, deadline=0.06, change=0.4
    ),
    "deadlines on devices": Day(
        {"policy": Adaptive(latency_target=0.03), "concurrency": 2, "max_batch_size": 32}, gap=0.0003
    ),
    "deadlines of a cohort": Day({"policy": Adaptive(latency_target=0.05)}, clients=12, a=0.015),
    "automatic, one device": Day({"concurrency": "auto"}, gap=0.0004, speeds=(1.0,) * 8, items=8000),
    "automatic, three devices": Day({"concurrency": "auto"}, gap=0.0004, speeds=(1.0, 2.0, 3.0), items=12_000),
    "automatic, two devices that slow each other": Day(
        {"concurrency": "auto", "policy": Adaptive()}, clients=40, speeds=(1.0, 1.4, 1.3), change=2.0, items=12_000
    ),
    "automatic, hardly loaded": Day({"concurrency": "auto"}, gap=0.004, speeds=(1.0, 2.0), change=0.2, items=3000),
}

TICK = 2.0**-10

GRID: dict[str, Any] = {"tick": TICK, "a": 8 * TICK, "b": 0.0, "noise": 0.13, "back": TICK}

DAYS |= {
    "clients and a few others": Day({"policy": Adaptive()}, clients=8, others=0.04),
    "clients and some others": Day({"policy": Adaptive()}, clients=12, others=0.01),
    "clients and many others": Day({"policy": Adaptive()}, clients=8, others=0.003),
    "others come later": Day({"policy": Adaptive()}, clients=24, others=0.05, change=0.25, items=9000),
    "full batches and others": Day({"policy": Adaptive(), "max_batch_size": 6}, clients=16, others=0.02),
    "a grid: a cohort": Day({"policy": Adaptive(max_hold=16 * TICK)}, clients=8, **GRID),
    "a grid: holds of a tick": Day({"policy": Adaptive(max_hold=TICK)}, clients=8, **GRID),
    "a grid: holds of two ticks": Day({"policy": Adaptive(max_hold=2 * TICK)}, clients=12, **GRID),
    "a grid: holds of three ticks": Day(
        {"policy": Adaptive(max_hold=3 * TICK)}, clients=9, **(GRID | {"back": 2 * TICK, "noise": 0.0})
    ),
    "a grid: full batches": Day(
        {"policy": Adaptive(max_hold=8 * TICK), "max_batch_size": 4}, clients=11, **(GRID | {"back": 3 * TICK})
    ),
    "a grid: fuller batches": Day(
        {"policy": Adaptive(max_hold=12 * TICK), "max_batch_size": 12}, clients=16, **(GRID | {"back": 2 * TICK})
    ),
    "a grid: others": Day({"policy": Adaptive(max_hold=8 * TICK)}, clients=8, others=30 * TICK, **GRID),
    "a grid: many others": Day({"policy": Adaptive(max_hold=8 * TICK)}, clients=8, others=6 * TICK, **GRID),
    "a grid: clients that leave": Day(
        {"policy": Adaptive(max_hold=8 * TICK)}, clients=40, change=2.0, items=16_000, **GRID
    ),
    "a grid: failures": Day(
        {"policy": Adaptive(max_hold=8 * TICK), "on_error": "bisect"}, clients=12, fails=0.05, **GRID
    ),
    "a grid: two devices": Day({"policy": Adaptive(), "concurrency": 2}, gap=2 * TICK, items=3000, **GRID),
    "a grid: three devices": Day(
        {"policy": Adaptive(max_hold=4 * TICK), "concurrency": 3}, gap=1.5 * TICK, items=3000, **GRID
    ),
    "a grid: deadlines": Day(
        {"policy": Adaptive(), "max_batch_size": 8}, gap=TICK, deadline=24 * TICK, **(GRID | {"b": TICK / 4})
    ),
    "a grid: deadlines on devices": Day(
        {"policy": Adaptive(), "max_batch_size": 8, "concurrency": 3},
        gap=0.5 * TICK,
        deadline=24 * TICK,
        **(GRID | {"b": TICK / 4}),
    ),
    "a grid: deadlines and crowds": Day(
        {"policy": Adaptive(latency_target=32 * TICK), "max_batch_size": 8, "concurrency": 4},
        **{"clients": 80, **GRID, "b": TICK / 2, "noise": 0.0},
    ),
    "a grid: automatic": Day(
        {"concurrency": "auto", "max_batch_size": 4}, clients=64, speeds=(1.0, 2.0, 2.5, 2.5), **GRID
    ),
    "a grid: automatic, failures": Day(
        {"concurrency": "auto", "max_batch_size": 4}, clients=64, speeds=(1.0, 2.0, 3.0), fails=0.03, **GRID
    ),
    "a grid: automatic, other devices": Day(
        {"concurrency": "auto", "max_batch_size": 2}, clients=40, speeds=(1.0, 1.5, 1.75), change=0.5, **GRID
    ),
}


@dataclass
class World:
    """A core on its day."""

    day: Day
    core: Core[int, int] = field(init=False)
    now: float = 0.0
    pace: float = field(init=False)
    """Seconds between two callers that come once, in the mean."""
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    coming: list[float] = field(default_factory=list)
    running: dict[Batch[int], float] = field(default_factory=dict)
    """Seconds of work that are left."""
    number: int = 0
    once: set[Request[int]] = field(default_factory=set)
    """Requests of callers that do not come back."""
    other: float = inf
    """When the next of those comes."""
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Let the first callers come."""
        options = {"max_queue_size": 500, "max_batch_size": 256} | self.day.options
        self.core = Core(Options(**options))
        first = [self.on_tick(self.chance.random() * self.day.back) for _ in range(self.day.clients)]
        self.coming = sorted(first)
        self.pace = self.day.others if self.day.clients else self.day.gap
        if self.pace:
            self.other = self.on_tick(self.pace)

    @property
    def later(self) -> bool:
        """Whether it is the second half."""
        return self.number > self.day.items / 2

    def live(self) -> list[str]:
        """Return what was decided, a line each."""
        while True:
            ends, first = self.next_end()
            arrival = min([self.other, *self.coming[:1]]) if self.number < self.day.items else inf
            when = min(ends, arrival, max(self.core.due, self.now))
            if when == inf:
                return self.lines
            self.pass_time(when)
            if first is not None and ends == when:
                self.end(first)
            elif arrival == when:
                self.come()
            self.ask()

    def on_tick(self, seconds: float) -> float:
        """Return the nearest time at which something may happen."""
        tick = self.day.tick
        return round(seconds / tick) * tick if tick else seconds

    def speed(self) -> float:
        """Return how fast each running batch goes on."""
        speeds, count = self.day.speeds, len(self.running)
        return speeds[min(count, len(speeds)) - 1] / count if speeds else 1.0

    def next_end(self) -> tuple[float, Batch[int] | None]:
        """Return the time at which the next batch ends, and which."""
        if not self.running:
            return inf, None
        first = min(self.running, key=self.running.__getitem__)
        return self.now + max(self.running[first], 0.0) / self.speed(), first

    def pass_time(self, until: float) -> None:
        """Let all that runs go on until then."""
        if self.running:
            done = (until - self.now) * self.speed()
            for batch in self.running:
                self.running[batch] -= done
        self.now = until

    def come(self) -> None:
        """Let a caller come; one that is refused comes back as one that was answered."""
        self.number += 1
        request = Request(self.number, deadline=self.now + self.day.deadline, **self.core_options())
        if self.other == self.now:
            self.once.add(request)
            slower = 2.0 if self.later and self.day.change != 1.0 else 1.0
            self.other = self.now + self.on_tick(2 * self.chance.random() * self.pace * slower)
        else:
            heapq.heappop(self.coming)
        try:
            self.core.offer((request,), self.now)
        except (QueueFullError, DeadlineExceededError) as error:
            self.lines.append(f"{self.now:.9f} refused, {error.retry_after:.9f}")
            self.come_back([request])

    def core_options(self) -> dict[str, Any]:
        """Return what the interface would ask the user's functions for."""
        found: dict[str, Any] = {}
        if "cost" in self.day.options:
            found["cost"] = self.day.options["cost"](self.number)
        if "group_by" in self.day.options:
            found["group"] = self.day.options["group_by"](self.number)
        return found

    def come_back(self, requests: list[Request[int]]) -> None:
        """Let clients prepare their next call."""
        for request in requests:
            if request in self.once:
                self.once.remove(request)
                continue
            if self.later and self.day.change != 1.0 and len(self.coming) > self.day.clients / 2:
                continue  # they have left for good
            heapq.heappush(self.coming, self.now + self.on_tick(self.day.back * (1 + self.chance.random())))

    def end(self, batch: Batch[int]) -> None:
        """End a batch, well or not."""
        del self.running[batch]
        if self.chance.random() < self.day.fails:
            settled = self.core.finish(batch, Failed(ValueError()), self.now)
        else:
            settled = self.core.finish(batch, list(batch.items), self.now)
        self.come_back([request for request, _ in settled])

    def ask(self) -> None:
        """Do what the core says."""
        while self.core.due <= self.now:
            decision = self.core.decide(self.now)
            if isinstance(decision, Run):
                size = len(decision.batch.requests)
                work = self.day.a + self.day.b * size
                work *= 1 + self.day.noise * (2 * self.chance.random() - 1)
                self.running[decision.batch] = self.on_tick(work * (self.day.change if self.later else 1.0))
                reason = self.core.dispatches()[-1].reason
                self.lines.append(f"{self.now:.9f} {size} {reason}, {self.core.slots} slots")
            elif isinstance(decision, Expire):
                late = [request for request, _ in decision.settled]
                self.lines.append(f"{self.now:.9f} {len(late)} expired")
                self.come_back(late)
            else:
                break


def digests(lines: list[str]) -> list[str]:
    """Return a digest for each so many lines."""
    parts = ("\n".join(lines[start : start + LINES]) for start in range(0, len(lines), LINES))
    return [hashlib.sha256(part.encode()).hexdigest()[:8] for part in parts]


def record(day: Day) -> dict[str, Any]:
    """Live a day; return what is kept of it."""
    world = World(day)
    lines = world.live()
    stats = world.core.stats()
    reasons = {reason: count for reason, count in stats.reasons.items() if count}
    return {"batches": stats.batches, "completed": stats.completed, "reasons": reasons, "digests": digests(lines)}


def kept() -> dict[str, Any]:
    """Live all days, and return what is kept of them."""
    days: dict[str, Any] = {name: record(day) for name, day in DAYS.items()}
    return days | {f"slots, seed {seed}": digests(some_slots(seed)) for seed in SEEDS}


if __name__ == "__main__":
    FILE.write_text(json.dumps(kept(), indent=1) + "\n")
