"""Pure: a detector for callers that return together, and the end of the hold for them.

Theory of operation
===================

Some callers return as soon as they have their answer (a pool of workers, a load generator). Under a greedy rule
they split into two halves: one half runs while the other half waits, and each pays for the batch of the other.
One hold for all of them makes them one cohort, and then every batch has all of them. Observations without a hold
do not show the gain of such a hold:

* During a batch, callers return more slowly, because they and the batch share processors.
* If reading requests takes as long as a batch, two halves form a pipeline, which is better than one cohort.

So the detector makes trials. It is in one of three modes:

    watching    Nothing is held. Batches that left callers waiting count up, the others count down. At a limit
                the next mode is trying.
    trying      A few batches are held until all known callers have returned. If the batcher then serves more
                items a second than before, the next mode is holding. Else it is watching, for longer than before.
    holding     A batch is held while the hold gains more than it costs. The next mode is watching as soon as
                callers wait longer for their next answer than before the trial, or their number has changed by
                the factor `CHANGE`.

While the batch of a cohort runs, no caller of the cohort can submit an item. Arrivals during a batch are
therefore strangers, callers outside of the cohort. If there are more than a few, there is no cohort, and trying
and holding end at once. With independent callers this takes one or two batches.

The gain of a hold, with n items waiting, k more expected within d seconds and a batch time of tau: the hold costs
n * d and saves k * tau. The detector learns k while batches are held. It counts the returns within d seconds after
the end of a batch, as a share of the items of that batch, for several d.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import inf
from typing import Literal

from .cost_model import CostModel

FIRST_SPAN = 0.0001
"""Seconds: the shortest span after the end of a batch in which returns are counted."""

STEP = 1.5
"""The ratio of each further span to the one before, up to `max_hold`: this scale fits cohorts of all sizes."""

LEARNED = 0.05
"""The weight of the newest batch in all moving averages."""

LEAST = 0.5
"""The fewest expected items that are worth a hold. A higher limit would leave the last of a few callers behind."""

FIRST_PAUSE, PAUSE, MORE_PAUSE, LONGEST_PAUSE = 16, 256, 4, 4096
"""Batches that are watched before a trial. Batches that left no caller waiting are subtracted from the others.

FIRST_PAUSE      before the first trial, after the end of holding, and after a change of the callers
PAUSE            after the first trial that failed
MORE_PAUSE       the factor after each further trial that failed
LONGEST_PAUSE    the upper limit
"""

TRIAL = 8
"""Batches in a trial. The first one is not measured."""

GAIN = 1.05
"""A trial succeeds if it serves more than this many times as many items a second as before."""

LOSS = 1.1
"""The time between the answers of a caller may grow by this factor over the time before the trial."""

STRANGERS = 0.25
"""Arrivals during batches, for each item of those batches, above which there is no cohort."""

CHANGE = 2.0
"""A change in the number of callers by this factor, up or down, makes the result of a trial invalid."""

NO_BATCH = -inf, 0
"""The end and the size of a batch that does not exist."""

NO_HOLD = -inf, 0
"""The end of a hold, by time and by number of accepted items; here: no hold."""


class Cohort:
    """The returns of the callers of a batcher with one batch in flight, and the hold for them."""

    __slots__ = (
        *("_max_hold", "_grid", "_returned", "_left", "_counts"),
        *("_last", "_before", "_accepted_then", "_accepted_at_start"),
        *("_mode", "_together", "_callers", "_pause", "_watch", "_callers_then"),
        *("_full", "_held", "_idle", "_answers", "_seconds", "_seen"),
        *("_batches", "_items", "_strangers", "_served", "_took", "_rate_before", "_loop_before"),
    )

    def __init__(self, max_hold: float) -> None:
        """Initialise without observations, so that nothing is held. No hold is longer than `max_hold` seconds.

        The other attributes are set by the first batch, or at the start of a trial. Reading them earlier raises
        AttributeError, instead of giving a meaningless number.
        """
        self._max_hold = max_hold
        self._grid: list[float] = []
        span = FIRST_SPAN
        while span < max_hold:
            self._grid.append(span)
            span *= STEP
        if max_hold:
            self._grid.append(max_hold)
        self._last = self._before = NO_BATCH  # the two batches that ended last: end, size
        self._mode: Literal["watching", "trying", "holding"] = "watching"
        self._callers = 0.0  # mean at the end of a batch: waiting or just answered
        self._pause = FIRST_PAUSE
        self._watch = FIRST_PAUSE  # batches until the next trial
        self._answers = self._seconds = 0.0  # means: batch size, seconds between ends (not idle)
        self._seen = 0  # batches in these means

    # Observations

    def forget(self) -> None:
        """Drop the last two ends of batches, because another event has made the interval since then unusable."""
        self._last = self._before = NO_BATCH

    def started(self, arrivals: Sequence[float], accepted: int, *, full: bool) -> None:
        """Observe the start of a batch; while trying or holding, count the returns after the last two ends.

        `arrivals` are the arrival times of its items. `full`: the batch had no room for more items.
        """
        self._accepted_at_start = accepted
        self._full = full
        ended, _ = self._last
        self._idle = arrivals[0] > ended + self._max_hold  # no item waited before
        if self._mode == "watching":
            return
        times = sorted(arrivals)  # already in order, unless there are priorities
        before, size = self._before
        if before > -inf:
            start = bisect_right(times, before)
            end = bisect_right(times, ended)
            self._left += LEARNED * (size - self._left)
            for place, span in enumerate(self._grid):
                count = self._counts[place] + min(bisect_right(times, before + span), end) - min(start, end)
                self._returned[place] += LEARNED * (count - self._returned[place])
        start = bisect_right(times, ended)
        # Items that have arrived so far, for each span after the last end.
        self._counts: list[int] = [bisect_right(times, ended + span) - start for span in self._grid]

    def finished(self, size: int, waiting: int, accepted: int, most: int, now: float) -> None:
        """Observe the end of a batch: judge the trial or the holds, or check whether a trial is due.

        `waiting` is the number of items that wait. `most` is the largest number of items in a batch.
        """
        ended, _ = self._last
        seconds = 0.0 if self._idle or ended == -inf else now - ended
        if seconds:  # idle time says nothing about the worth of holds
            self._seen += 1
            weight = max(LEARNED, 1 / self._seen)
            self._answers += weight * (size - self._answers)
            self._seconds += weight * (seconds - self._seconds)
        self._before, self._last = self._last, (now, size)
        self._accepted_then = accepted
        if self._mode != "watching":
            self._judge(size, accepted, seconds)
        self._held = False
        self._together = waiting + size  # callers that wait or have just been answered
        self._callers += (LEARNED if self._callers else 1.0) * (self._together - self._callers)
        if self._mode == "watching" and self._seconds and waiting < most:
            self._watch_on(waiting)

    def _judge(self, size: int, accepted: int, seconds: float) -> None:
        missing = max(self._together - size, 0) if self._full else 0  # callers that had no room in the batch
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
        self._batches += self._held or not self._full  # a full batch may have been full before the hold
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
        self._callers_then = self._callers  # at the last change of the mode
        self._pause = min(max(MORE_PAUSE * self._pause, PAUSE), LONGEST_PAUSE) if failed else FIRST_PAUSE
        self._watch = self._pause
        self._seen = 0  # rates with holds or of other callers are no baseline for the next trial

    def _are_others(self) -> bool:
        """Return whether the number of callers has changed by the factor `CHANGE` since the last mode change."""
        more = self._callers / self._callers_then
        return max(more, 1 / more) >= CHANGE

    def _watch_on(self, waiting: int) -> None:
        """Start a trial when one is due. Two halves are likely if most batches leave callers waiting."""
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
        self._served = 0  # without the first batch, whose callers had gathered before
        self._took = 0.0  # the seconds for these items
        self._items = self._strangers = 0.0  # items in held batches, arrivals during these
        self._rate_before = self._answers / self._seconds
        self._loop_before = self._callers / self._rate_before
        self._before = NO_BATCH  # observations of returns begin here
        self._returned = [0.0] * len(self._grid)  # mean returns after a held batch
        self._left = 0.0  # mean size of those batches

    # Decisions

    def hold(self, waiting: int, accepted: int, cost: CostModel, room: int, now: float) -> tuple[float, int]:
        """Return the end of the hold for a batch of `waiting` items, as a time and as a number of accepted items.

        The first of the two ends the hold. A time of -inf means no hold. `room` is the number of items that the
        batch can still take.
        """
        if self._mode == "trying":
            return self._for_all(waiting, accepted, cost, room, now)
        if self._mode == "holding":
            return self._best(waiting, accepted, cost, room, now)
        return NO_HOLD

    def _for_all(self, waiting: int, accepted: int, cost: CostModel, room: int, now: float) -> tuple[float, int]:
        """Return the end of a hold for all callers that were there at the last end of a batch.

        The hold lasts at most a batch time, counted from that end, and at most `max_hold`.
        """
        missing = min(self._together - waiting, room)
        ended, _ = self._last
        until = ended + min(cost.predict(waiting), self._max_hold)
        if missing <= 0 or until <= now:
            return NO_HOLD
        self._held = True
        return until, accepted + missing

    def _best(self, waiting: int, accepted: int, cost: CostModel, room: int, now: float) -> tuple[float, int]:
        """Return the end of the hold with the largest gain; `NO_HOLD` if none gains."""
        ended, size = self._last
        come = accepted - self._accepted_then
        batch = cost.predict(waiting)
        best, found = 0.0, NO_HOLD
        share = size / (self._left or inf)  # 0 until two batches in a row have ended well
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
