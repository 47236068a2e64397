"""When callers of a batch are waited for, event by event. What it is worth is in `tests/benchmarks/theory`."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest

from batchers.policies.cohort import FIRST_PAUSE, LONGEST_PAUSE, MORE_PAUSE, PAUSE, TRIAL, Cohort
from batchers.policies.cost_model import CostModel

BATCH = 0.010


def cost(seconds: float = BATCH) -> CostModel:
    """Return a model of batches that all take so long."""
    model = CostModel()
    for _ in range(5):
        model.observe(4, seconds)
    return model


class Callers:
    """So many callers of one batcher, each of which comes back `back` seconds after its answer, in a row."""

    def __init__(self, number: int, back: float, *, most: int = 1000, batch: float = BATCH) -> None:
        self.cohort = Cohort(0.025)
        self.most = most
        self.back = back
        self.batch = batch
        self.now = 0.0
        self.accepted = 0
        self.waiting: list[float] = []
        self.coming = [0.0] * number
        self.sizes: list[int] = []
        self.held: list[int] = []  # batches that were
        self.ends = [0.0]

    def cycle(self) -> None:
        """Let one batch gather, run and end."""
        self._come(self.now)
        while True:
            if not self.waiting:
                self._come(self.coming[0])
                continue
            if len(self.waiting) >= self.most:
                break
            model, room = cost(self.batch), self.most - len(self.waiting)
            until, enough = self.cohort.hold(len(self.waiting), self.accepted, model, room, self.now)
            if until <= self.now:
                break
            self.held.append(len(self.sizes))
            while self.accepted < enough and self.coming and self.coming[0] < until:
                self._come(self.coming[0])
            if self.accepted < enough:
                self.now = until
        batch, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
        self.cohort.started(batch, self.accepted, full=len(batch) == self.most)
        end = self.now + self.batch
        self._come(end)
        self.now = end
        self.ends.append(self.now)
        self.sizes.append(len(batch))
        self.cohort.finished(len(batch), len(self.waiting), self.accepted, self.most, self.now)
        self.coming = sorted(self.coming + [self.now + self.back * (n + 1) for n in range(len(batch))])

    @property
    def rate(self) -> float:
        """Answers a second, lately."""
        ends = self.ends[-9:]
        return sum(self.sizes[1 - len(ends) :]) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0

    def _come(self, until: float) -> None:
        while self.coming and self.coming[0] <= until:
            self.now = max(self.now, self.coming.pop(0))
            self.waiting.append(self.now)
            self.accepted += 1

    def run(self, cycles: int) -> None:
        """Let so many batches run."""
        for _ in range(cycles):
            self.cycle()

    def split(self, late: int) -> None:
        """Let so many come later than the others, so that two halves form."""
        self.coming = sorted(0.002 if n < late else 0.0 for n in range(len(self.coming)))


def test_nothing_is_held_before_the_trial() -> None:
    """So many batches that left callers waiting are watched; the next one is held for all."""
    callers = Callers(8, 0.0001)
    callers.split(4)
    callers.run(FIRST_PAUSE + 1)
    assert set(callers.sizes) == {4}
    assert not callers.held
    callers.run(2)
    assert callers.sizes[-2:] == [8, 8]


def test_a_cohort_that_pays_is_kept() -> None:
    """Twice as many in each batch, in little more time: then all come together, and go when all are there."""
    callers = Callers(8, 0.0001)
    callers.split(4)
    callers.run(200)
    assert set(callers.sizes[FIRST_PAUSE + 1 :]) == {8}
    assert callers.ends[-1] - callers.ends[-2] == pytest.approx(BATCH + 0.0008)


def test_two_halves_that_are_a_pipeline() -> None:
    """Reading 32 requests takes longer than a batch: one cohort would serve fewer, so it is tried and left."""
    callers = Callers(32, 0.0006)
    callers.split(16)
    callers.run(FIRST_PAUSE + PAUSE)
    assert min(callers.held) >= FIRST_PAUSE
    assert max(callers.held) < FIRST_PAUSE + TRIAL
    assert callers.rate > 32 / (BATCH + 32 * 0.0006)


def test_failed_trials_become_rare() -> None:
    """Each is much later than the one before, up to a limit."""
    callers = Callers(32, 0.0006)
    callers.split(16)
    callers.run(12_000)
    gaps = [later - earlier for earlier, later in pairwise(callers.held) if later - earlier > TRIAL]
    expected = [PAUSE, PAUSE * MORE_PAUSE, PAUSE * MORE_PAUSE**2, LONGEST_PAUSE]
    assert gaps[:4] == [pytest.approx(gap, rel=0.2) for gap in expected]


def strangers(cohort: Cohort, batches: int, size: int, waiting: int, now: float = 0.0) -> list[bool]:
    """Let batches run during each of which `waiting` more come; return which were held."""
    held, accepted = [], 0
    for _ in range(batches):
        accepted += size
        until, _ = cohort.hold(waiting, accepted, cost(), 1000, now)
        held.append(until > -inf)
        cohort.started([now] * size, accepted, full=False)
        now += BATCH
        accepted += waiting
        cohort.finished(size, waiting, accepted, 1000, now)
        accepted -= size
    return held


def test_independent_callers_end_a_trial_at_once() -> None:
    """As many come while the held batch runs as before: they did not wait for each other."""
    held = strangers(Cohort(0.025), 2 * FIRST_PAUSE, 4, 4)
    assert 1 <= held.count(True) <= 2


def test_one_caller_is_never_tried() -> None:
    """No batch leaves anybody waiting."""
    callers = Callers(1, 0.0001)
    callers.run(300)
    assert not callers.held


def test_the_limit_of_a_batch() -> None:
    """With more callers than places the hold is for the places that are left."""
    callers = Callers(12, 0.0001, most=8)
    callers.run(300)
    assert set(callers.sizes[-100:]) == {8}


def test_other_callers_get_another_chance() -> None:
    """After many failed trials fewer callers come, for whom a cohort pays: it is tried soon."""
    callers = Callers(32, 0.0006)
    callers.split(16)
    callers.run(3000)
    last = max(callers.held)
    callers.coming, callers.waiting = callers.coming[:6], []
    callers.run(2 * PAUSE)
    assert set(callers.sizes[-20:]) == {6}
    assert last < callers.held[-1]


def test_a_cohort_that_pays_no_more() -> None:
    """Answers take longer from now on: callers are worse off than before the trial, so it is given up."""
    callers = Callers(8, 0.0001)
    callers.split(4)
    callers.run(200)
    assert len(callers.sizes) - 1 in callers.held
    callers.back = 0.0030
    callers.run(25)
    assert len(callers.sizes) - 1 not in callers.held


def test_pauses_of_all_callers() -> None:
    """Nobody waits meanwhile, so they are no part of what a hold is worth: the cohort goes on as it was."""
    callers = Callers(8, 0.0001)
    callers.split(4)
    for _ in range(12):
        callers.run(40)
        callers.now += 1.0
        callers.coming = [time + 1.0 for time in callers.coming]
    assert callers.sizes[-1] == 8
    assert callers.sizes[FIRST_PAUSE + 1 :].count(8) >= 0.97 * (len(callers.sizes) - FIRST_PAUSE - 1)
    callers.back = 0.0030
    callers.run(25)
    assert len(callers.sizes) - 1 not in callers.held


def test_callers_that_come_late_but_together() -> None:
    """The longest hold is one that is learned, too."""
    callers = Callers(8, 0.0030, batch=0.050)
    callers.split(4)
    callers.run(200)
    assert set(callers.sizes[-50:]) == {8}


@pytest.mark.parametrize("longest", [0.0, 0.00005, 0.0001])
def test_short_limits(longest: float) -> None:
    """No hold is longer than the longest; 0: there is none."""
    callers = Callers(8, 0.0001)
    callers.cohort = Cohort(longest)
    callers.split(4)
    callers.run(100)
    waits = [later - earlier - BATCH for earlier, later in pairwise(callers.ends)]
    assert max(waits[1:]) <= longest + 0.0001
    assert bool(callers.held) == (longest > 0)


def test_what_others_were_served_is_no_measure() -> None:
    """Few callers for whom a cohort pays, then many for whom it does not: the trial with these is lost."""
    callers = Callers(6, 0.0006)
    callers.split(3)
    callers.run(100)
    assert callers.sizes[-1] == 6
    callers.coming = sorted([*callers.coming, *(callers.now + 0.0006 * n for n in range(26))])
    callers.run(80)
    assert len(callers.sizes) - 1 not in callers.held
    assert callers.cohort._rate_before == pytest.approx(callers.rate, rel=0.05)
