"""What the rule of `Adaptive` says, at the very numbers where it changes. Batches take whole seconds."""

from __future__ import annotations

from math import inf

import pytest

from batchers import Adaptive, Options
from batchers.core.group_queue import Request
from batchers.core.groups import Groups
from batchers.policies.adaptive import AdaptiveRule
from batchers.policies.base import Rule
from batchers.policies.cohort import FIRST_PAUSE
from batchers.policies.greedy import Greedy


def rule(
    *, slots: int = 1, most: int = 1000, seconds: float = 1.0, target: float | None = None, come: int = 0
) -> AdaptiveRule:
    """Return one that has seen batches of one item end, the last at 0; `come` items came between two ends."""
    found = AdaptiveRule(100.0, most, slots, target)
    for number in range(-9, 1):
        found.started(number, [number - seconds], "idle_slot", come * number, number - seconds)
        found.finished(number, 1, seconds, 0, come * number, number, well=True)
    assert (found.cost.a, found.cost.b, found.cost.margin) == (seconds, 0.0, 0.0)
    return found


def hold(of: AdaptiveRule, now: float, *, oldest: float | None = None, deadline: float = inf) -> float:
    """Ask it with one item that waits."""
    return of.hold(1, 0, now if oldest is None else oldest, deadline, 0, now)


def test_no_holds() -> None:
    """A `max_hold` of 0 is one."""
    assert Adaptive(max_hold=0).max_hold == 0


def test_answers_behind_batches_that_run() -> None:
    """An item that finds them all busy goes when the first ends, behind a full batch when the next one does."""
    found = rule(slots=3, most=2)
    for number, start in enumerate((0.0, 0.25, 0.5)):
        found.started(f"batch {number}", [start], "idle_slot", 0, start)
    assert [found.answered_at(ahead, 0.75) for ahead in range(7)] == [2.0, 2.0, 2.25, 2.25, 2.5, 2.5, 3.0]


def test_answers_of_free_slots() -> None:
    """One that finds a free slot goes at once; behind as many batches as are free, when the first ends."""
    found = rule(slots=3, most=2)
    assert [found.answered_at(ahead, 0.75) for ahead in range(7)] == [*[1.75] * 6, 2.75]
    found.started("batch", [0.0], "idle_slot", 0, 0.0)
    assert [found.answered_at(ahead, 0.75) for ahead in range(7)] == [1.75, 1.75, 1.75, 1.75, 2.0, 2.0, 2.75]


def test_a_batch_that_just_fits() -> None:
    """Half of the target for an item, to the last bit: batches have one."""
    found = AdaptiveRule(0.0, 1000, 1, 2.0)
    for number, size in enumerate((2, 4) * 8):
        found.started(number, [0.0] * size, "idle_slot", 0, 0.0)
        found.finished(number, size, float(size), 0, 0, 0.0, well=True)
    assert (found.cost.a, found.cost.b) == (0.0, 1.0)
    assert found.most() == 1


def test_batches_apart() -> None:
    """Half-way between the last start and the next end, but not at that moment any more."""
    found = rule(slots=2, seconds=4.0, come=1)
    found.started("batch", [0.0], "idle_slot", 0, 0.0)
    assert found._rate == pytest.approx(1.0)
    assert hold(found, 0.5) == 2.0
    assert found.reason == "spacing"
    assert hold(found, 2.0, oldest=0.5) == -inf
    assert found.reason == "spacing"

    found = rule(slots=2, seconds=4.0, come=1)
    found.started("batch", [0.0], "idle_slot", 0, 0.0)
    assert hold(found, 2.0) == -inf
    assert found.reason == "idle_slot"


def test_who_comes_when_a_hold_is_over() -> None:
    """What was held has left: nobody held this one."""
    found = rule(slots=2, seconds=4.0, come=1)
    found.started("batch", [0.0], "idle_slot", 0, 0.0)
    assert hold(found, 0.5) == 2.0
    assert hold(found, 2.0) == -inf
    assert found.reason == "idle_slot"


def test_few_that_come() -> None:
    """Less than one a second: batches that take longer are still kept apart; where nobody comes none is."""
    found = AdaptiveRule(100.0, 1000, 2)
    for number in range(10):
        found.started(number, [0.0], "idle_slot", number, 0.0)
        found.finished(number, 1, 16.0, 0, number, 4.0 * number, well=True)
    found.started("batch", [0.0], "idle_slot", 10, 40.0)
    assert found._rate == pytest.approx(0.25)
    assert hold(found, 41.0) == 48.0
    found = rule(slots=2)
    found.started("batch", [0.0], "idle_slot", 0, 0.0)
    assert found._rate == 0
    assert hold(found, 0.25) == -inf


def test_a_deadline_that_allows_the_hold() -> None:
    """To the last bit; one that does not is the reason."""
    for deadline, until, reason in ((6.0, 2.0, "spacing"), (5.5, 1.5, "deadline")):
        found = rule(slots=2, seconds=4.0, come=1)
        found.started("batch", [0.0], "idle_slot", 0, 0.0)
        assert hold(found, 0.5, deadline=deadline) == until
        assert found.reason == reason


def test_a_hold_ends_when_there_is_no_room() -> None:
    """Eight were together, six are allowed: with four that wait two more are expected, and then it is over."""
    found = rule(most=6)
    for number in range(1, FIRST_PAUSE + 3):
        found.started(number, [float(number)] * 4, "idle_slot", 0, float(number))
        found.finished(number, 4, 1.0, 4, 0, number + 1.0, well=True)
    now = FIRST_PAUSE + 3.0
    assert found.hold(4, 0, now, inf, 0, now) == now + 1.0
    assert found.hold(6, 0, now, inf, 2, now + 0.25) == -inf


class Holds(Rule):
    """Holds everything until then."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until

    def hold(self, *_: object) -> float:
        return self.until


@pytest.mark.parametrize(("seconds", "held"), [(1e-6, False), (1.5e-6, True)])
def test_the_shortest_hold(seconds: float, held: bool) -> None:
    """A microsecond is none: roundings of one time differ."""
    groups: Groups[int] = Groups(Options(), Holds(seconds), object())
    request = Request(0)
    groups.admit([request])
    request.number, request.arrived = 1, 0.0
    queue = request.level.queue
    assert queue.add(request)
    groups.rank(queue)
    assert groups.held_until(0.0, 1, 1, inf, at_once=False) == (seconds if held else -inf)


def test_what_a_rule_is_told_of_each_group() -> None:
    """Of the first one to go, and then of the one with the oldest item: what waits, and the same of all groups."""
    asked: list[tuple[object, ...]] = []

    class Asked(Rule):
        __slots__ = ()

        def hold(self, *told: object) -> float:
            asked.append(told)
            return inf

    groups: Groups[int] = Groups(Options(), Asked(), object())
    requests = [Request(0, group="old"), Request(0, group="urgent", priority=1)]
    groups.admit(requests)
    for number, request in enumerate(requests):
        request.number, request.arrived = number, float(number)
        assert request.level.queue.add(request)
        groups.rank(request.level.queue)
    assert groups.select(3.0, 2, 7, 9.0, at_once=False) is None
    assert asked == [(1, 1, 1.0, 9.0, 7, 3.0), (1, 1, 0.0, 9.0, 7, 3.0)]


@pytest.mark.parametrize(("most", "follows"), [(100, False), (105, False), (106, True), (95, False), (94, True)])
def test_limits_follow_changes_that_matter(most: int, follows: bool) -> None:
    """By more than a twentieth."""
    options = Options(max_batch_size=100, policy=Greedy())
    groups: Groups[int] = Groups(options, options.rule(), object())
    requests = [Request(0)]
    groups.admit(requests)
    queue = requests[0].level.queue
    groups.limit(most)
    assert queue.most == (most if follows else 100)
