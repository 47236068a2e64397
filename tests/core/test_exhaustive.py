"""Every order of events, up to a depth, under all tiny limits: the core against the plain model.

States that the model cannot tell apart are merged, so a depth that a test by chance would never reach
takes seconds. When it fails, the message is the shortest sequence of events that shows the defect.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from .plain import Limits
from .world import World

Event = tuple[str, Callable[[World], bool]]

BASIC: list[Event] = [
    ("offer", lambda world: world.offer()),
    ("withdraw oldest", lambda world: world.withdraw_waiting(0)),
    ("withdraw youngest", lambda world: world.withdraw_waiting(-1)),
    ("withdraw running", lambda world: world.withdraw_running()),
    ("finish oldest", lambda world: world.finish(0, ok=True)),
    ("finish youngest", lambda world: world.finish(-1, ok=True)),
    ("fail oldest", lambda world: world.finish(0, ok=False)),
    ("tick", lambda world: world.tick()),
    ("close", lambda world: world.close()),
    ("force", lambda world: world.close(force=True)),
    ("abandon", lambda world: world.close(force=True, abandon=True)),
]
GROUP: Event = ("offer b", lambda world: world.offer("b"))
URGENT: Event = ("offer urgent", lambda world: world.offer(priority=1))
HURRY: Event = ("offer timeout 1", lambda world: world.offer(timeout=1))
LATE: Event = ("offer timeout 0", lambda world: world.offer(timeout=0))
DEAR: Event = ("offer cost 2", lambda world: world.offer(cost=2.0))
CHEAP: Event = ("offer cost 1", lambda world: world.offer(cost=1.0))


def explore(limits: Limits, events: list[Event], depth: int) -> int:
    """Try every event in every state that can be reached; return how many states there were."""
    seen = {World(limits).plain.key()}
    paths: list[list[int]] = [[]]
    for _ in range(depth):
        reached: list[list[int]] = []
        for path, number in product(paths, range(len(events))):
            world = World(limits)
            steps = [*path, number]
            try:
                world.known = True
                for step in path:
                    events[step][1](world)
                world.known = False
                possible = events[number][1](world)
            except Exception as error:
                names = ", ".join(events[step][0] for step in steps)
                raise AssertionError(f"{limits}: {names}") from error
            key = world.plain.key()
            if possible and key not in seen:
                seen.add(key)
                reached.append(steps)
        paths = reached
    return len(seen)


@pytest.mark.parametrize("bisect", [False, True], ids=["fail", "bisect"])
@pytest.mark.parametrize("window", [None, 0.0, 2.0])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_tiny_limits(batch: int, slots: int, window: float | None, bisect: bool) -> None:
    """All events with one group: sizes, slots, windows, stops, failures."""
    limits = Limits(batch=batch, slots=slots, queue=3, window=window, bisect=bisect)

    assert explore(limits, [*BASIC, HURRY], depth=6) > 30


@pytest.mark.parametrize("bisect", [False, True], ids=["fail", "bisect"])
@pytest.mark.parametrize("slots", [1, 2])
def test_abandoned_batches_are_cancelled(slots: int, bisect: bool) -> None:
    """The callers leave one by one, or expire, and the batch ends as it likes."""
    limits = Limits(batch=2, slots=slots, queue=3, bisect=bisect, cancel=True)

    assert explore(limits, [*BASIC, HURRY], depth=6) > 30


@pytest.mark.parametrize("window", [None, 2.0])
@pytest.mark.parametrize(
    "extra",
    [(GROUP,), (URGENT,), (GROUP, URGENT), (HURRY, LATE)],
    ids=lambda events: " and ".join(name for name, _ in events),
)
def test_groups_priorities_deadlines(extra: tuple[Event, ...], window: float | None) -> None:
    """Two groups, two priorities and deadlines, in every order."""
    limits = Limits(batch=2, slots=1, queue=4, window=window)

    assert explore(limits, [*BASIC[:5], *BASIC[7:9], *extra], depth=6) > 100


@pytest.mark.parametrize("window", [None, 2.0])
@pytest.mark.parametrize("batch", [2, 3])
def test_costs(batch: int, window: float | None) -> None:
    """Items of cost 1 and 2, and a limit of 3."""
    limits = Limits(batch=batch, slots=1, queue=4, window=window, cost=3.0)

    assert explore(limits, [*BASIC[1:5], BASIC[7], DEAR, CHEAP], depth=6) > 100
