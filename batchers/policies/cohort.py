"""Pure: whether the callers of a batch come back together, and until when a free slot waits for them.

Theory of operation
===================

Callers that come back as soon as they have their answer (a pool of workers, a load generator) split under a greedy
rule into two halves: one runs, the other waits, and each pays for the other's batch. Waiting once for all of them
makes them one cohort, and then every batch has them all. Whether that pays cannot be seen beforehand: with
a batch under way callers come back more slowly, because they and the batch share processors; and where reading
requests takes as long as a batch, two halves are a pipeline that is better left alone. So it is tried:

    watching    nothing is held. After some more batches that left callers waiting than did not: trying
    trying      a few batches are held until all callers that were seen are there. Then, if the batcher served more
                of them a second than before: holding; else watching, for longer than before
    holding     batches are held while the hold gains more than it costs; watching again, as soon as callers wait
                longer for their next answer than they did before

While a cohort runs, nobody of it can come: arrivals during a batch are strangers, who come when they like. Where
they are more than a few, there is no cohort, and both trying and holding end at once. With independent callers
that is after a batch or two.

What a hold gains: with n items waiting, k more expected within d seconds and a batch time of tau, it costs
n * d, and saves k * tau. How many come within d seconds after the end of a batch is learned while batches are
held, for each item of that batch and for several d.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import inf
from typing import Literal

from .cost_model import CostModel

FIRST_SPAN = 0.0001
"""Seconds: the first time after the end of a batch at which arrivals are counted."""

STEP = 1.5
"""Each further one is so many times as long, up to `max_hold`: cohorts of all sizes have a scale of their own."""

LEARNED = 0.05
"""The weight of the newest batch in all averages."""

LEAST = 0.5
"""Expected items, below which a hold is never worth it: of few callers the last one would be left behind."""

FIRST_PAUSE, PAUSE, MORE_PAUSE, LONGEST_PAUSE = 16, 256, 4, 4096
"""Batches that are watched before the first trial; after the first that failed; so many times as many after each
further one; at most. Those that left nobody waiting count against the others."""

TRIAL = 8
"""Batches."""

GAIN = 1.05
"""A trial has to serve so many times as many items a second."""

LOSS = 1.1
"""The time between a caller's answers may become so many times as long as before the trial."""

STRANGERS = 0.25
"""Arrivals during batches, for each item of those batches, from which on there is no cohort."""

CHANGE = 2.0
"""So many times as many callers, or as few, are other callers: what a trial has shown does not count."""

NO_BATCH = -inf, 0
"""When it ended, and its size."""

NO_HOLD = -inf, 0
"""Until when, and with how many accepted items it is over."""


class Cohort:
    """The callers of a batcher with one batch in flight."""

    __slots__ = (
        *("_max_hold", "_grid", "_returned", "_left", "_counts"),
        *("_last", "_before", "_accepted_then", "_accepted_at_start"),
        *("_mode", "_together", "_callers", "_pause", "_watch", "_callers_then"),
        *("_full", "_held", "_idle", "_answers", "_seconds", "_seen"),
        *("_batches", "_items", "_strangers", "_served", "_took", "_rate_before", "_loop_before"),
    )

    def __init__(self, max_hold: float) -> None:
        """Know nobody: nothing is held. No hold is longer than `max_hold`.

        What is not here is set by the first batch, or when a trial begins: who reads it before gets an error, and
        no number that means nothing.
        """
        self._max_hold = max_hold
        self._grid: list[float] = []
        span = FIRST_SPAN
        while span < max_hold:
            self._grid.append(span)
            span *= STEP
        if max_hold:
            self._grid.append(max_hold)
        self._last = self._before = NO_BATCH  # the two that ended last: when, and their sizes
        self._mode: Literal["watching", "trying", "holding"] = "watching"
        self._callers = 0.0  # that waited or had their answer when a batch ended, in the mean
        self._pause = FIRST_PAUSE
        self._watch = FIRST_PAUSE  # batches until the next trial
        self._answers = self._seconds = 0.0  # items of a batch, and the seconds between ends, but for idle ones
        self._seen = 0  # batches that these are the means of

    # What is seen

    def forget(self) -> None:
        """Begin anew with what comes between ends of batches: there was something else since the last one."""
        self._last = self._before = NO_BATCH

    def started(self, arrivals: Sequence[float], accepted: int, *, full: bool) -> None:
        """Count those who came back after the last two ends of batches, where it matters.

        `full`: whether there was no place for more.
        """
        self._accepted_at_start = accepted
        self._full = full
        ended, _ = self._last
        self._idle = arrivals[0] > ended + self._max_hold  # nobody waited before
        if self._mode == "watching":
            return
        times = sorted(arrivals)  # they are in order already, but for priorities
        before, size = self._before
        if before > -inf:
            start = bisect_right(times, before)
            end = bisect_right(times, ended)
            self._left += LEARNED * (size - self._left)
            for place, span in enumerate(self._grid):
                count = self._counts[place] + min(bisect_right(times, before + span), end) - min(start, end)
                self._returned[place] += LEARNED * (count - self._returned[place])
        start = bisect_right(times, ended)
        # Items that came so soon after the last end, so far.
        self._counts: list[int] = [bisect_right(times, ended + span) - start for span in self._grid]

    def finished(self, size: int, waiting: int, accepted: int, most: int, now: float) -> None:
        """Judge what a hold was worth, and see whether it is time for a trial.

        `waiting` items wait; a batch may have `most`.
        """
        ended, _ = self._last
        seconds = 0.0 if self._idle or ended == -inf else now - ended
        if seconds:  # time in which nobody waited says nothing of what holds are worth
            self._seen += 1
            weight = max(LEARNED, 1 / self._seen)
            self._answers += weight * (size - self._answers)
            self._seconds += weight * (seconds - self._seconds)
        self._before, self._last = self._last, (now, size)
        self._accepted_then = accepted
        if self._mode != "watching":
            self._judge(size, accepted, seconds)
        self._held = False
        self._together = waiting + size  # callers that wait or have their answer now
        self._callers += (LEARNED if self._callers else 1.0) * (self._together - self._callers)
        if self._mode == "watching" and self._seconds and waiting < most:
            self._watch_on(waiting)

    def _judge(self, size: int, accepted: int, seconds: float) -> None:
        missing = max(self._together - size, 0) if self._full else 0  # who had no place
        self._strangers += max(accepted - self._accepted_at_start - missing, 0)
        self._items += size
        if self._strangers > STRANGERS * self._items + 1:
            self._give_up(failed=True)
        elif self._mode == "trying":
            if seconds:
                self._try(size, seconds)
        else:
            self._items *= 1 - LEARNED
            self._strangers *= 1 - LEARNED
            if self._are_others() or self._callers * self._seconds > LOSS * self._loop_before * self._answers:
                self._give_up(failed=False)

    def _try(self, size: int, seconds: float) -> None:
        self._batches += self._held or not self._full  # a full batch may have been full before any hold
        if self._batches > 1:
            self._served += size
            self._took += seconds
        if self._batches < TRIAL:
            return
        if self._served > GAIN * self._rate_before * self._took:
            self._mode = "holding"
            self._callers_then = self._callers
        else:
            self._give_up(failed=True)

    def _give_up(self, *, failed: bool) -> None:
        self._mode = "watching"
        self._callers_then = self._callers  # when the mode changed last
        self._pause = min(max(MORE_PAUSE * self._pause, PAUSE), LONGEST_PAUSE) if failed else FIRST_PAUSE
        self._watch = self._pause
        self._seen = 0  # what was served with holds, or to other callers, is no measure for the next trial

    def _are_others(self) -> bool:
        """Whether there are many more callers, or many less, than when the mode changed last."""
        more = self._callers / self._callers_then
        return max(more, 1 / more) >= CHANGE

    def _watch_on(self, waiting: int) -> None:
        """Begin a trial when it is time for one: two halves leave callers waiting after most batches."""
        if not waiting:
            self._watch = min(self._watch + 1, self._pause)
            return
        if self._pause > FIRST_PAUSE and self._are_others():
            self._pause = FIRST_PAUSE
            self._watch = min(self._watch, FIRST_PAUSE)
            self._seen = 0
        self._watch -= 1
        if self._watch <= 0:
            self._begin_trial()

    def _begin_trial(self) -> None:
        self._mode = "trying"
        self._batches = 0
        self._served = 0  # but for the first batch, whose callers had gathered before
        self._took = 0.0  # the seconds for them
        self._items = self._strangers = 0.0  # in held batches, and who came while these ran
        self._rate_before = self._answers / self._seconds
        self._loop_before = self._callers / self._rate_before
        self._before = NO_BATCH  # what is learned of returns begins here
        self._returned = [0.0] * len(self._grid)  # items that came so soon after the end of a held batch
        self._left = 0.0  # items of those batches

    # What is decided

    def hold(self, waiting: int, accepted: int, cost: CostModel, room: int, now: float) -> tuple[float, int]:
        """Return until when a batch of `waiting` items is held, and with how many accepted items the hold is over.

        -inf: not at all. `room`: items that it has place for.
        """
        if self._mode == "trying":
            return self._for_all(waiting, accepted, cost, room, now)
        if self._mode == "holding":
            return self._best(waiting, accepted, cost, room, now)
        return NO_HOLD

    def _for_all(self, waiting: int, accepted: int, cost: CostModel, room: int, now: float) -> tuple[float, int]:
        """Hold until all are there that were there when the batch before ended; a batch time at most."""
        missing = min(self._together - waiting, room)
        ended, _ = self._last
        until = ended + min(cost.predict(waiting), self._max_hold)
        if missing <= 0 or until <= now:
            return NO_HOLD
        self._held = True
        return until, accepted + missing

    def _best(self, waiting: int, accepted: int, cost: CostModel, room: int, now: float) -> tuple[float, int]:
        """Return the end of the hold that gains most."""
        ended, size = self._last
        come = accepted - self._accepted_then
        batch = cost.predict(waiting)
        best, found = 0.0, NO_HOLD
        share = size / (self._left or inf)  # 0: no two batches in a row have ended well
        for place, span in enumerate(self._grid):
            left = ended + span - now
            more = share * self._returned[place] - come
            if left <= 0 or more < LEAST:
                continue
            gain = batch * min(more, room) - waiting * left
            if gain > best:
                best = gain
                found = ended + span, accepted + min(int(more - LEAST) + 1, room)
        return found
