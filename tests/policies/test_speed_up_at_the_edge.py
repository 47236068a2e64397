"""How many batches in flight are worth it, at the very numbers where it changes. A batch alone takes a second."""

from __future__ import annotations

from itertools import count

import pytest

from batchers.policies.speed_up import ALONE, PATIENCE, PAUSE, STALE, SpeedUp


class Script:
    """Slots that are told what has happened."""

    def __init__(self) -> None:
        self.slots = SpeedUp()
        self.now = 0.0
        self.ended = 0
        self.numbers = count()
        self.starts: dict[int, float] = {}

    def tries(self) -> bool:
        """Whether a trial goes on."""
        return self.slots._trying

    def start(self) -> int:
        """Let a batch begin."""
        number = next(self.numbers)
        self.slots.started(number, 1, self.now)
        self.starts[number] = self.now
        return number

    def end(self, number: int, waiting: int = 0) -> None:
        """Let a batch end, while so many wait."""
        self.ended += 1
        self.slots.finished(number, 1, self.now - self.starts.pop(number), waiting, self.now, well=True)

    def alone(self, batches: int, waiting: int = 0) -> None:
        """Let so many run alone."""
        for _ in range(batches):
            number = self.start()
            self.now += 1.0
            self.end(number, waiting)

    def pairs(self, *together: float, apart: float = 0.0) -> None:
        """Let pairs run so many seconds; the second batch of the first one for a moment longer."""
        for seconds in together:
            one, other = self.start(), self.start()
            self.now += seconds
            self.end(one)
            self.now += apart
            apart = 0.0
            self.end(other)

    def to_trial(self) -> None:
        """Run as many alone as it takes."""
        self.alone(ALONE, waiting=1)
        assert (self.slots.slots, self.slots._trying) == (2, True)

    def to_two(self) -> None:
        """Keep two at a time: a trial of twelve pairs, whose last batch is still to end."""
        self.to_trial()
        self.pairs(*[1.0] * 11)
        assert self.slots._trying
        one, self.last = self.start(), self.start()
        self.now += 1.0
        self.end(one)
        assert (self.slots.slots, self.slots._trying) == (2, False)

    def behind_one_that_hangs(self) -> int:
        """Let pairs run of which one never ends, until batches run alone; return how many have ended by then."""
        self.start()
        ended = 0
        while self.slots.slots > 1:
            number = self.start()
            self.now += 4.0
            self.end(number)
            ended += 1
            assert ended <= 2 * STALE
        return ended


def test_the_first_trial() -> None:
    """After so many batches alone that left items waiting, and not before."""
    script = Script()
    script.alone(ALONE - 1, waiting=1)
    assert script.slots.slots == 1
    script.alone(1, waiting=0)
    assert script.slots.slots == 1
    script.alone(1, waiting=1)
    assert script.slots.slots == 2


def test_twelve_batch_times_together() -> None:
    """A trial is over when the first batch of the twelfth pair ends."""
    script = Script()
    script.to_two()
    assert script.ended == ALONE + 23


@pytest.mark.parametrize(("longer", "counts"), [(0.0, True), (0.25, False)])
def test_three_times_as_long_as_alone(longer: float, counts: bool) -> None:
    """A batch beside another may run so long; one that runs longer says nothing."""
    script = Script()
    script.to_trial()
    slow = script.start()
    for seconds in (1.0, 1.0, 1.0 + longer):
        number = script.start()
        script.now += seconds
        script.end(number)
    script.end(slow)
    script.pairs(*[1.0] * 8)
    assert script.tries()
    one, other = script.start(), script.start()
    script.now += 1.0
    script.end(one)
    script.end(other)
    assert script.tries() is not counts


@pytest.mark.parametrize(("apart", "kept"), [(1.5, False), (1.375, True)])
def test_just_not_better(apart: float, kept: bool) -> None:
    """Two at a time have to do more than 5/3 of the work: 20 batches in 12 seconds are not enough.

    Of the 22nd half is done when the 21st ends, and one ran alone for a while.
    """
    script = Script()
    script.to_trial()
    script.pairs(*[1.0] * 5, 2.0, *[1.0] * 4, apart=apart)
    assert script.tries()
    one = script.start()
    script.start()
    script.now += 1.0
    script.end(one)
    assert not script.tries()
    assert script.slots.slots == 1 + kept


@pytest.mark.parametrize(("apart", "kept"), [(2.0, True), (3.0, False)])
def test_what_stays_may_seem_a_little_worse(apart: float, kept: bool) -> None:
    """By a twentieth: less than 5/3, but more than 1.59.

    Half of a batch was done when the measurement began, and half of another when it ends.
    """
    script = Script()
    script.to_two()
    script.end(script.last)  # the first of 22, of which one ran alone for a while
    script.pairs(*[1.0] * 5, 2.0, *[1.0] * 4, apart=apart)
    one = script.start()
    script.start()
    script.now += 1.0
    script.end(one)
    assert script.slots.slots == 1 + kept


def test_no_work_in_the_time_of_two() -> None:
    """What one at a time explains leaves nothing for two: a trial that ends without an error."""
    script = Script()
    script.to_trial()
    number = script.start()
    script.now += 0.5
    for _ in range(12):  # each batch runs for three seconds, the first and the last of them beside another
        script.now += 1.0
        other = script.start()
        script.now += 1.0
        script.end(number)
        number = other
    assert (script.slots.slots, script.tries()) == (1, False)


def test_a_trial_without_load() -> None:
    """It ends after so many batches that ran alone; the next one is after a pause."""
    script = Script()
    script.to_trial()
    script.alone(PATIENCE - 1, waiting=1)
    assert script.slots.slots == 2
    script.alone(1, waiting=1)
    assert script.slots.slots == 1
    script.alone(PAUSE, waiting=1)
    assert script.slots.slots == 1
    script.alone(1, waiting=1)
    assert script.slots.slots == 2


def test_nothing_to_measure_for_a_long_time() -> None:
    """A look at how long none has run alone comes with each end of patience, counted from the last judgement."""
    script = Script()
    script.to_two()
    script.end(script.last)
    assert script.behind_one_that_hangs() == STALE - 1


@pytest.mark.parametrize("more", [0, 1])
def test_none_has_run_alone_for_a_long_time(more: int) -> None:
    """So many batches are enough when patience ends; with one less it has to end once more."""
    script = Script()
    script.to_two()
    script.end(script.last)
    script.alone(PATIENCE - 1 + more)
    ended = script.behind_one_that_hangs()
    assert ended == (STALE if not more else STALE + PATIENCE - 1)


@pytest.mark.parametrize(("odd", "ends"), [(False, STALE), (True, STALE - 1 + 24)])
def test_none_has_run_alone_when_it_is_judged(odd: bool, ends: int) -> None:
    """The same at the end of a measurement: there is one for each 24 batches in pairs."""
    script = Script()
    script.to_two()
    script.end(script.last)
    script.pairs(*[1.0] * (4 if odd else 3))
    script.alone(1)
    ended = script.ended
    if not odd:  # three that overlap
        one, two = script.start(), script.start()
        script.now += 1.0
        script.end(one)
        three = script.start()
        script.now += 1.0
        script.end(two)
        script.end(three)
    while True:
        one, two = script.start(), script.start()
        script.now += 1.0
        script.end(one)
        if script.slots.slots == 1:
            break
        script.end(two)
        assert script.ended - ended < 2 * STALE
    assert script.ended - ended == ends
