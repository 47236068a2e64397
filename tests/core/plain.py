"""The simplest right model of the core: one list in the order of arrival, searched anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf


@dataclass
class Item:
    """One call."""

    number: int
    group: str
    priority: int
    cost: float
    arrived: float
    deadline: float

    @property
    def rank(self) -> tuple[int, int]:
        """The place in the order of batches."""
        return (-self.priority, self.number)


@dataclass
class Limits:
    """What the core is told."""

    batch: int = 2
    slots: int = 1
    queue: int = 4
    window: float | None = None
    cost: float = inf
    bisect: bool = False
    cancel: bool = False


@dataclass
class Plain:
    """Decides as the core must, without any structure that could be wrong."""

    limits: Limits
    now: float = 0.0
    waiting: list[Item] = field(default_factory=list)
    running: list[list[Item]] = field(default_factory=list)  # oldest first; those who left are still in it
    divided: list[list[Item]] = field(default_factory=list)
    cancelled: list[list[Item]] = field(default_factory=list)  # of the running ones
    alive: set[int] = field(default_factory=set)  # numbers of items that are running and not settled
    closed: bool = False
    accepted: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, times: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + times

    def offer(self, group: str, priority: int, cost: float, timeout: float) -> str:
        if self.closed or len(self.waiting) >= self.limits.queue:
            self.count("rejected")
            return "stopped" if self.closed else "full"
        self.accepted += 1
        self.waiting.append(Item(self.accepted, group, priority, cost, self.now, self.now + timeout))
        return "accepted"

    def settle(self, item: Item) -> None:
        if item in self.waiting:
            self.waiting.remove(item)
        self.alive.discard(item.number)

    def live(self, items: list[Item]) -> list[Item]:
        return [item for item in items if item.number in self.alive]

    def withdraw(self, item: Item) -> None:
        self.settle(item)
        self.count("cancelled")

    def finish(self, place: int, ok: bool) -> list[int]:
        batch = self.running.pop(place)
        if batch in self.cancelled:
            self.cancelled.remove(batch)
            return []
        if not ok and self.limits.bisect and len(batch) > 1:
            middle = len(batch) // 2
            self.divided += [batch[:middle], batch[middle:]]
            return []
        settled = self.live(batch)
        for item in settled:
            self.settle(item)
            self.count("completed" if ok else "failed")
        return [item.number for item in settled]

    def close(self, force: bool, abandon: bool = False) -> set[int]:
        self.closed = True
        gone: list[Item] = []
        if force:
            gone += self.waiting
            gone += [item for part in self.divided for item in self.live(part)]
            self.divided = []
        if abandon:
            gone += [item for batch in self.running for item in self.live(batch)]
            self.running = []
            self.cancelled = []
        for item in gone:
            self.settle(item)
            self.count("stopped")
        return {item.number for item in gone}

    def full(self, group: list[Item]) -> bool:
        return len(group) >= self.limits.batch or sum(item.cost for item in group) >= self.limits.cost

    def goes_at(self, group: list[Item]) -> float:
        if self.closed or self.full(group) or self.limits.window is None:
            return -inf
        return min(item.arrived for item in group) + self.limits.window

    def groups(self) -> list[list[Item]]:
        names = {item.group for item in self.waiting}
        found = [sorted((i for i in self.waiting if i.group == name), key=lambda i: i.rank) for name in names]
        return sorted(found, key=lambda group: group[0].rank)

    def choose(self) -> list[Item] | None:
        groups = self.groups()
        by_age = min(groups, key=lambda group: min(item.number for item in group))
        candidates = [groups[0], *(group for group in groups if self.full(group)), by_age]
        return next((group for group in candidates if self.goes_at(group) <= self.now), None)

    def decide(self) -> tuple[str, object]:
        everyone = self.waiting + [i for batch in self.running + self.divided for i in self.live(batch)]
        expired = [item for item in everyone if item.deadline <= self.now]
        if expired:
            for item in expired:
                self.settle(item)
                self.count("expired")
            return "expire", {item.number for item in expired}
        for batch in self.running if self.limits.cancel else ():
            if not self.live(batch) and batch not in self.cancelled:
                self.cancelled.append(batch)
                return "expire", set()
        if len(self.running) < self.limits.slots:
            while self.divided:
                part = self.live(self.divided.pop(0))
                if part:
                    self.running.append(part)
                    return "run", [item.number for item in part]
            group = self.choose() if self.waiting else None
            if group:
                batch = []
                for item in group[: self.limits.batch]:
                    if sum(taken.cost for taken in batch) + item.cost > self.limits.cost:
                        break
                    batch.append(item)
                for item in batch:
                    self.settle(item)
                    self.alive.add(item.number)
                self.running.append(batch)
                return "run", [item.number for item in batch]
        if self.closed and not (self.waiting or self.running or self.divided):
            return "done", None
        return "wait", None

    def next_change(self) -> float:
        """Return the time at which something happens by itself."""
        everyone = self.waiting + [i for batch in self.running + self.divided for i in self.live(batch)]
        times = [item.deadline for item in everyone]
        if len(self.running) < self.limits.slots:
            times += [self.goes_at(group) for group in self.groups()]
        return min(times, default=inf)

    def key(self) -> tuple[object, ...]:
        """Return what the future depends on: states with equal keys behave alike."""

        def seen(item: Item) -> tuple[object, ...]:
            return (item.group, item.priority, item.cost, item.arrived - self.now, item.deadline - self.now)

        def batches(found: list[list[Item]]) -> tuple[object, ...]:
            return tuple(tuple((seen(i), i.number in self.alive) for i in batch) for batch in found)

        return (self.closed, tuple(map(seen, self.waiting)), batches(self.running), batches(self.divided))
