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
time.
"""

from __future__ import annotations

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


class SpeedUp:
    """How many batches may be in flight, from what the last ones took."""

    __slots__ = (
        *("slots", "_alone", "_speeds", "_running", "_last", "_times", "_work", "_batches"),
        *("_trying", "_pause", "_watch", "_seen"),
    )

    def __init__(self) -> None:
        """Allow one."""
        self.slots = 1
        self._alone = CostModel()
        self._speeds = [0.0, 1.0]  # s(0), s(1), and what was measured beyond
        self._running: dict[object, bool] = {}  # batches, and whether each has been alone so far
        self._last = 0.0  # the time of the last event
        self._times = [0.0] * (LIMIT + 1)  # T(0), T(1), ... since the measurement began
        self._work = 0.0
        self._batches = 0
        self._trying = False
        self._pause = PAUSE
        self._watch = 0  # batches until the next trial
        self._seen = 0  # batches that ran alone

    def started(self, batch: object, now: float) -> None:
        """Note that one more runs."""
        self._pass(now)
        if self._running:
            for other in self._running:
                self._running[other] = False
        self._running[batch] = not self._running

    def finished(self, batch: object, size: int, seconds: float, waiting: int, now: float, *, well: bool) -> None:
        """Learn from a batch that has ended, unless it failed, while so many items wait."""
        self._pass(now)
        alone = self._running.pop(batch)
        if not well:
            self._measure_anew()
            return
        if alone:
            self._alone.observe(size, seconds)
            self._seen += 1
        self._work += self._alone.predict(size)
        self._batches += 1
        if self._trying or self.slots > 1:
            self._judge(size)
        if not self._trying and waiting and self.slots < LIMIT and self._seen >= ALONE:
            self._watch -= 1
            if self._watch < 0:
                self._trying = True
                self.slots += 1
                self._measure_anew()

    def _pass(self, now: float) -> None:
        self._times[min(len(self._running), LIMIT)] += now - self._last
        self._last = now

    def _measure_anew(self) -> None:
        self._times = [0.0] * (LIMIT + 1)
        self._work = 0.0
        self._batches = 0

    def _judge(self, size: int) -> None:
        """Decide whether the last slot is worth it, when there is enough to say."""
        most = self.slots
        if self._times[most] < TRIAL * self._alone.predict(size):
            if self._batches >= PATIENCE:  # the load is not so high that it matters
                self._measure_anew()
                if self._trying:
                    self._end_trial(self._pause)
            return
        known = sum(speed * self._times[count] for count, speed in enumerate(self._speeds[:most]))
        work = self._work + len(self._running) * self._alone.predict(size) / 2  # half of what still runs is done
        speed = (work - known) / self._times[most]
        fewer = (most - 0.5) / self._speeds[most - 1]
        better = speed > 0 and (most + 0.5) / speed < fewer * (1.0 if self._trying else KEEP)
        self._measure_anew()
        if better:
            self._speeds[most:] = [speed]
            if self._trying:
                self._trying = False
                self._pause = self._watch = PAUSE
        else:
            self._end_trial(min(MORE_PAUSE * self._pause, LONGEST_PAUSE))

    def _end_trial(self, pause: int) -> None:
        self._trying = False
        self.slots -= 1
        self._pause = self._watch = pause
