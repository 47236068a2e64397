"""What decides about holds, at the very numbers where the decision changes. Times are whole seconds, or halves."""

from __future__ import annotations

from math import inf

import pytest

from batchers.policies.cohort import FIRST_PAUSE, NO_HOLD, TRIAL, Cohort
from batchers.policies.cost_model import CostModel

ROOM = 1000


def one_second() -> CostModel:
    """Return a model of batches that all take a second, exactly."""
    model = CostModel()
    for _ in range(5):
        model.observe(1, 1.0)
    assert (model.a, model.b) == (1.0, 0.0)
    return model


class Script:
    """A cohort that is told what has happened."""

    def __init__(self, max_hold: float = 1.0) -> None:
        self.cohort = Cohort(max_hold)
        self.ended = 0.0
        self.accepted = 0
        self.together = 0
        self.cost = one_second()

    def batch(
        self,
        size: int = 4,
        waiting: int = 4,
        *,
        back: float = 0.0,
        strangers: int = 0,
        seconds: float = 1.0,
        full: bool = False,
    ) -> None:
        """Run a batch whose items came `back` seconds after the last end, so many seconds after that end."""
        self.cohort.started([self.ended + back] * size, self.accepted, full=full)
        self.accepted += strangers
        self.ended += seconds
        self.together = size + waiting
        self.cohort.finished(size, waiting, self.accepted, ROOM, self.ended)

    def hold(self, waiting: int = 1, *, later: float = 0.0, room: int = ROOM) -> tuple[float, int]:
        """Ask, with so many waiting, so long after the last end; return how long after it, and how many more."""
        until, enough = self.cohort.hold(waiting, self.accepted, self.cost, room, self.ended + later)
        return (until - self.ended, enough - self.accepted) if until > -inf else NO_HOLD

    def to_trial(self, size: int = 4, waiting: int = 4) -> None:
        """Let as many batches leave callers waiting as are watched before a trial."""
        while self.hold() == NO_HOLD:
            assert self.ended <= FIRST_PAUSE
            self.batch(size, waiting)

    def to_holding(self, size: int = 8, *, back: float = 0.0) -> None:
        """Let a trial succeed, in which all come back after so long."""
        self.to_trial(1, 4)
        for _ in range(TRIAL + 1):
            self.batch(size, 0, back=back, seconds=1.0 + back)
        assert self.cohort._mode == "holding"


def test_who_comes_at_the_end_of_the_longest_hold_was_not_idle() -> None:
    """Such batches count, and after enough of them there is a trial; after later ones there is none."""
    for back, trial in ((1.0, True), (1.5, False)):
        script = Script()
        for _ in range(FIRST_PAUSE + 2):
            script.batch(back=back, seconds=2.0)
        assert (script.hold() != NO_HOLD) is trial


def test_a_trial_holds_for_all_but_not_for_nobody() -> None:
    """For a batch time after the last end, until all are there or there is no room; at the end of it no more."""
    script = Script()
    script.to_trial(4, 4)
    assert script.hold(5) == (1.0, 3)
    assert script.hold(5, room=2) == (1.0, 2)
    assert script.hold(5, room=0) == NO_HOLD
    assert script.hold(8) == NO_HOLD
    assert script.hold(5, later=0.5) == (1.0, 3)
    assert script.hold(5, later=1.0) == NO_HOLD


@pytest.mark.parametrize(("strangers", "goes_on"), [(2, True), (3, False)])
def test_as_many_strangers_as_a_trial_bears(strangers: int, goes_on: bool) -> None:
    """A quarter of the items and one more."""
    script = Script()
    script.to_trial()
    script.batch(4, 4, strangers=strangers)
    assert (script.hold() != NO_HOLD) is goes_on


def test_few_callers_without_strangers() -> None:
    """Nobody is a stranger whom nobody saw."""
    script = Script()
    script.to_trial(1, 1)
    for _ in range(TRIAL - 1):
        script.batch(2, 0)
        assert script.hold() == (1.0, 1)


def test_strangers_of_full_batches() -> None:
    """Who had no place is no stranger, but one who comes while nobody was left behind is."""
    script = Script()
    script.to_trial(2, 1)
    for _ in range(2):
        script.batch(2, 1, full=True, strangers=1)
        assert script.hold() != NO_HOLD
    for _ in range(6):
        script.batch(2, 0, full=True, strangers=1)
        assert script.cohort._mode == "trying"
    script.batch(2, 0, full=True, strangers=1)
    assert script.cohort._mode == "watching"


def test_a_trial_counts_batches_that_nobody_held() -> None:
    """When all are there already, that is a cohort as well; one that serves no more is none."""
    script = Script()
    script.to_trial(4, 4)
    for _ in range(TRIAL):
        assert script.hold() != NO_HOLD
        script.batch(4, 4)
    assert script.hold() == NO_HOLD


def test_full_batches_count_in_a_trial_if_they_were_held() -> None:
    """Others may have been full before any hold."""
    for held in (False, True):
        script = Script()
        script.to_trial(4, 4)
        for _ in range(TRIAL):
            if held:
                assert script.hold(5) != NO_HOLD
            script.batch(4, 4, full=True)
        assert (script.hold() == NO_HOLD) is held


@pytest.mark.parametrize(("large", "holds"), [(0, False), (1, True), (7, True)])
def test_the_first_batch_of_a_trial_does_not_count(large: int, holds: bool) -> None:
    """Its callers had gathered before; each of the others does."""
    script = Script()
    script.to_trial(4, 4)
    for number in range(TRIAL):
        script.batch(400 if number == large else 4, 4)
    assert (script.cohort._mode == "holding") is holds


@pytest.mark.parametrize(("extra", "holds"), [(0, False), (1, True)])
def test_a_trial_has_to_gain_more_than_a_twentieth(extra: int, holds: bool) -> None:
    """Of 20 items a second before, 21 are not enough."""
    script = Script()
    script.to_trial(20, 20)
    for number in range(TRIAL):
        script.batch(21 + (extra if number == TRIAL - 1 else 0), 20)
    assert (script.cohort._mode == "holding") is holds


def test_what_was_learned_long_ago_fades() -> None:
    """After a thousand good batches strangers end the holds nearly as soon as after a hundred."""
    lasted = []
    for batches in (100, 1000):
        script = Script()
        script.to_holding()
        for _ in range(batches):
            script.batch(8, 0)
        count = 0
        while script.cohort._mode == "holding":
            script.batch(8, 0, strangers=4)
            count += 1
        lasted.append(count)
    assert lasted == [14, 15]


@pytest.mark.parametrize(("more", "others"), [(159, False), (160, True)])
def test_twice_as_many_callers_are_others(more: int, others: bool) -> None:
    """From 8 in the mean to 16."""
    script = Script()
    script.to_holding()
    script.cohort._callers = script.cohort._callers_then = 8.0
    script.batch(8, more)
    assert (script.cohort._callers == 16.0) is others
    script.batch(8, 0)
    assert (script.cohort._mode == "watching") is others


def test_other_callers_are_measured_anew() -> None:
    """What was served to those before is no part of the rate that the next trial has to exceed."""
    script = Script()
    script.to_trial(400, 400)
    for _ in range(TRIAL):
        script.batch(400, 400)
    assert script.hold() == NO_HOLD
    for _ in range(5):
        script.batch(400, 400)
    for _ in range(3 * FIRST_PAUSE):
        script.batch(4, 4)
        if script.hold() != NO_HOLD:
            break
    assert script.cohort._rate_before == pytest.approx(4.0)


def test_batches_that_fail_leave_nothing_to_learn_returns_from() -> None:
    """A trial may end well without two batches in a row that did: then nobody is expected."""
    script = Script()
    script.to_trial(1, 4)
    for _ in range(TRIAL):
        script.cohort.forget()
        script.batch(8, 0)
        script.batch(8, 0)
    assert script.cohort._mode == "holding"
    assert script.hold() == NO_HOLD


@pytest.mark.parametrize(("callers", "holds"), [(11.0, True), (11.001, False)])
def test_a_loop_that_is_a_tenth_longer(callers: float, holds: bool) -> None:
    """Callers may wait so much longer for their next answer than before the trial, and no longer."""
    script = Script()
    script.to_holding()
    cohort = script.cohort
    cohort._callers = cohort._callers_then = callers
    cohort._seconds = cohort._answers = 1.0
    cohort._loop_before = 10.0
    script.batch(1, 10)
    assert (cohort._mode == "holding") is holds


@pytest.mark.parametrize(
    ("more", "expected"), [(0.5, (1.0, 1)), (0.499, NO_HOLD), (1.5, (1.0, 2)), (1.499, (1.0, 1))]
)
def test_half_an_item(more: float, expected: tuple[float, int]) -> None:
    """With so many expected one is waited for; with one more, two."""
    script = Script()
    script.to_holding()
    cohort = script.cohort
    cohort._left = 8.0
    cohort._returned = [0.0] * (len(cohort._grid) - 1) + [more]
    assert script.hold(1, later=0.875) == expected


def test_a_hold_that_gains_nothing() -> None:
    """One more item saves a batch time of a second: that is what one that waits for a second costs."""
    script = Script()
    script.to_holding(8, back=0.875)
    for _ in range(100):
        script.batch(8, 0, back=0.875, seconds=1.875)
    assert script.hold(1, room=1) == NO_HOLD
    assert script.hold(1, room=1, later=0.125) == (1.0, 1)
    assert script.hold(1, room=2) == (1.0, 2)
    assert script.hold(1, room=ROOM, later=1.0) == NO_HOLD
    assert script.hold(1, room=ROOM, later=0.5) == (1.0, 8)


def test_who_has_waited_since_before_the_last_batch_has_not_come_back() -> None:
    """Of the items that are expected."""
    script = Script()
    script.to_holding(8, back=0.5)
    for _ in range(200):
        now = script.ended
        script.cohort.started([now - 1.75] * 2 + [now + 0.5] * 6, script.accepted, full=True)
        script.ended += 1.5
        script.cohort.finished(8, 2, script.accepted, ROOM, script.ended)
    assert script.cohort._mode == "holding"
    _, enough = script.hold(1)
    assert enough == 6
