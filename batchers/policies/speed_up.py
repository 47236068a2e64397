"""Pure: how many batches in flight are worth it, measured (`concurrency="auto"`).

s(c) is the work that c batches do together in one batch time of a batch alone. Items wait for half of the gap
between two starts and then for their batch, so with c of them the mean latency under load is near
(c + 1/2) / s(c) batch times: 1.5 with one. Independent devices have s(c) = c; a model that uses all processors in
one call has s(2) near 1, and two at a time are then a loss. (Callers that come back at once, in a closed loop, are
better served by one batch of all of them: with those choose 1.)

One at a time at first: that shows how long a batch takes alone. When batches leave items waiting, one more is
tried. During the trial the time with k batches in flight is T(k), and the batches that ended did an amount of work
that would have taken W alone, so W = T(1) + s(2) * T(2) + ..., which gives s(c), as the others are known. One more
stays if (c + 1/2) / s(c) falls; else the next trial is later, by more and more. What stays is measured all the
time, and from time to time a few batches run alone again: the model may be another one by now.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf

from .cost_model import CostModel

LIMIT = 8
"""Batches in flight that "auto" chooses at most."""

ALONE = 16
"""Batches that have run alone before the first trial."""

PAUSE, MORE_PAUSE, LONGEST_PAUSE = 32, 4, 8192
"""Batches before the next trial when one has succeeded; so many times as many after each that failed; most."""

TRIAL = 12.0
"""Batch times with all of them in flight, to be believed."""

PATIENCE = 256
"""Batches in which they come together, or the trial is over."""

KEEP = 1.05
"""What stays may seem so much worse than one batch less in flight: the noise of a measurement."""

OUTLIER = 1.5
"""A batch that runs so many times as long as one after the other would take says nothing of the others."""

STALE, AGAIN = 1024, 8
"""After so many batches without one that ran alone, so many run alone."""


class SpeedUp:
    """How many batches may be in flight, from what the last ones took."""

    __slots__ = (
        *("slots", "_alone", "_speeds", "_running", "_starts", "_last", "_times", "_work", "_squares", "_began"),
        *("_trying", "_pause", "_watch", "_patience", "_seen", "_since_alone", "_kept"),
    )

    def __init__(self) -> None:
        """Allow one."""
        self.slots = 1
        self._alone = CostModel()
        self._speeds = [0.0, 1.0]  # s(0), s(1), and what was measured beyond
        self._running: dict[object, bool] = {}  # batches, and whether each has been alone so far
        self._starts: dict[object, tuple[float, int]] = {}  # when they began, and their sizes
        self._last = 0.0  # the time of the last event
        self._measure_anew()
        self._trying = False
        self._pause = PAUSE
        self._watch = 0  # batches until the next trial
        self._patience = 0  # batches of the trial, or since the last measurement
        self._seen = 0  # batches that ran alone
        self._since_alone = 0
        self._kept = 0  # slots to return to, while batches run alone again; 0: they do not

    def started(self, batch: object, size: int, now: float) -> None:
        """Note that one more runs, of so many items."""
        self._pass(now)
        if self._running:
            for other in self._running:
                self._running[other] = False
        self._running[batch] = not self._running
        self._starts[batch] = now, size

    def finished(self, batch: object, size: int, seconds: float, waiting: int, now: float, *, well: bool) -> None:
        """Learn from a batch that has ended, unless it failed, while so many items wait."""
        self._pass(now)
        alone = self._running.pop(batch)
        del self._starts[batch]
        self._patience += 1
        if well:
            self._learn(size, seconds, alone=alone)
        else:
            self._measure_anew()
        if self._kept:
            self._return_from_alone()
        elif self._trying or self.slots > 1:
            self._judge(now)
        elif waiting and self._seen >= ALONE:
            self._try_more()
        if not self._trying and 1 < self.slots < LIMIT and waiting and not self._kept:
            self._try_more()

    def _learn(self, size: int, seconds: float, *, alone: bool) -> None:
        self._since_alone += 1
        if alone:
            self._alone.observe(size, seconds)
            self._seen += 1
            self._since_alone = 0
        work = self._alone.predict(size)
        self._work += work
        self._squares += work * work

    def _try_more(self) -> None:
        self._watch -= 1
        if self._watch < 0:
            self._trying = True
            self._patience = 0
            self.slots += 1
            self._measure_anew()

    def _pass(self, now: float) -> None:
        self._times[len(self._running)] += now - self._last
        self._last = now

    def _measure_anew(self) -> None:
        self._times: defaultdict[int, float] = defaultdict(float)  # T(0), T(1), ... since now
        self._work = 0.0  # what the batches that ended since would have taken alone
        self._squares = 0.0  # the same, each squared
        self._began = self._half_of_the_work()  # of those that ran then

    def _half_of_the_work(self) -> float:
        """Return what is done, in the mean, of the batches that run."""
        return sum(self._alone.predict(size) for _, size in self._starts.values()) / 2

    def _judge(self, now: float) -> None:
        """Decide whether the last slot is worth it, when there is enough to say."""
        most = self.slots
        longest = OUTLIER * most
        if any(now - start > longest * self._alone.predict(size) for start, size in self._starts.values()):
            self._measure_anew()
        # The time of the batch that runs at any moment: large ones count for more.
        mean = self._squares / self._work if self._work else inf
        if self._times[most] < TRIAL * mean:
            if self._patience >= PATIENCE:  # the load is not so high that it matters, or too much fails
                self._patience = 0
                self._measure_anew()
                if self._trying:
                    self._end_trial(self._pause)
                elif self._since_alone >= STALE:
                    self._run_alone()
            return
        known = sum(speed * self._times[count] for count, speed in enumerate(self._speeds[:most]))
        work = self._work + self._half_of_the_work() - self._began
        speed = (work - known) / self._times[most]
        fewer = (most - 0.5) / self._speeds[most - 1]
        # Without a division: two at a time may do nothing, and noise may make it less.
        better = most + 0.5 < speed * fewer * (1.0 if self._trying else KEEP)
        self._patience = 0
        self._measure_anew()
        if not better:
            self._end_trial(min(MORE_PAUSE * self._pause, LONGEST_PAUSE))
            return
        self._speeds[most:] = [speed]
        if self._trying:
            self._trying = False
            self._pause = self._watch = PAUSE
        elif self._since_alone >= STALE:
            self._run_alone()

    def _end_trial(self, pause: int) -> None:
        self._trying = False
        self.slots -= 1
        self._pause = self._watch = pause

    def _run_alone(self) -> None:
        self._kept, self.slots, self._seen = self.slots, 1, ALONE - AGAIN

    def _return_from_alone(self) -> None:
        if self._seen >= ALONE:
            self.slots, self._kept = self._kept, 0
            self._measure_anew()
