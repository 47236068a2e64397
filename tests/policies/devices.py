"""Devices that run several batches at once, and what `concurrency="auto"` makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable

from batchers.policies.speed_up import LIMIT, SpeedUp

BATCH = 0.010
"""Seconds of a batch alone."""

SPEEDS = (
    (1.0,),
    (1.0, 2.0),
    (1.0, 2.0, 3.0),
    (1.0, 1.5),
    (1.0, 1.25, 1.5),
    (1.0, 1.5, 2.0, 2.5, 3.0),
    (1.0, 2.0, 2.5, 2.5),
    (1.0, 0.75),
)
"""The work of 1, 2, ... batches together: quotients that floats can say, so that times are often equal."""

SEEDS = range(32)
BATCHES = 8000


class Device:
    """Runs batches: k of them do `speed(k)` times the work of one alone."""

    def __init__(self, speed: Callable[[int], float]) -> None:
        self.slots = SpeedUp()
        self.speed = speed
        self.now = 0.0
        self.running: dict[int, float] = {}  # batches, and the seconds alone that each has left
        self.starts: dict[int, float] = {}
        self.number = 0
        self.sizes: Callable[[int], int] = lambda number: 10 + 2 * (number % 3)
        self.batch = BATCH
        self.changes: list[tuple[int, int]] = []  # of the slots: after which batch, and to how many
        self.ended = 0

    @property
    def kept(self) -> int:
        """Slots, but for one that is being tried, or with those that rest while batches run alone."""
        return self.slots._kept or self.slots.slots - self.slots._trying

    def run(self, batches: int, *, waiting: int = 1, most: int = LIMIT, well: bool = True) -> None:
        """Let so many batches end, with as many in flight as are allowed, and `most` at most."""
        for _ in range(batches):
            while len(self.running) < min(self.slots.slots, most):
                self.slots.started(self.number, self.sizes(self.number), self.now)
                self.running[self.number] = self.batch * self.sizes(self.number) / 10
                self.starts[self.number] = self.now
                self.number += 1
            first = min(self.running, key=lambda number: self.running[number])
            share = self.speed(len(self.running)) / len(self.running)
            seconds = self.running[first] / share
            self.now += seconds
            for number in self.running:
                self.running[number] -= seconds * share
            del self.running[first]
            size = self.sizes(first)  # 10 items take a batch time
            took = self.now - self.starts.pop(first)
            before = self.slots.slots
            self.slots.finished(first, size, took, waiting, self.now, well=well)
            self.ended += 1
            if self.slots.slots != before:
                self.changes.append((self.ended, self.slots.slots))


def some_slots(seed: int) -> list[str]:
    """Return the changes of the slots, in a random life of a random device; batches take a second alone."""
    chance = random.Random(seed)
    device = Device(lambda _: 1.0)
    device.batch = 1.0
    one = chance.random() < 0.5
    device.sizes = lambda number: 10 if one else 5 * (1 + number % 3)
    speeds = chance.choice(SPEEDS)
    device.speed = lambda running: speeds[min(running, len(speeds)) - 1]
    while device.ended < BATCHES:
        if chance.random() < 0.1:
            speeds = chance.choice(SPEEDS)
        batches = chance.choice((1, 2, 3, 5, 40, 300, 1500))
        most = chance.choice((1, 2, 3, LIMIT, LIMIT, LIMIT))
        device.run(batches, waiting=chance.random() < 0.9, most=most, well=batches > 5 or chance.random() < 0.9)
    return [f"{ended} {slots}" for ended, slots in device.changes]
