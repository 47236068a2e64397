"""Pure: the measurement that finds the best number of batches in flight (`concurrency="auto"`).

The speed-up s(c) is the work that c concurrent batches do in the time that a batch takes alone. An item waits for
half of the gap between two starts and then for its batch. With c batches in flight the mean latency under load is
therefore near (c + 1/2) / s(c) batch times: 1.5 with one. Independent devices have s(c) = c. A model that uses all
processors in one call has s(2) near 1, and two batches at a time are then a loss. Callers that return at once, in
a closed loop, are better served by one batch of all of them: choose `concurrency=1` for these.

The measurement has these steps:

1. Batches run one at a time, which gives the service time of a batch alone.
2. When batches leave items waiting, a trial allows one more batch in flight. During the trial, T(k) is the time
   with k batches in flight, and W is the time that the finished batches would have taken alone. Then
   W = T(1) + s(2) * T(2) + ..., which gives s(c), as the other terms are known.
3. The additional batch stays if (c + 1/2) / s(c) falls. Otherwise the next trial comes later, after longer and
   longer pauses.
4. The speed-up of the allowed number is measured all the time. From time to time a few batches run alone again,
   because the service time of the model may have changed.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf

from .cost_model import CostModel

LIMIT = 8
"""The largest number of batches in flight that "auto" chooses."""

ALONE = 16
"""Batches that must have run alone before the first trial."""

PAUSE, MORE_PAUSE, LONGEST_PAUSE = 32, 4, 8192
"""Batches before the next trial: after a success; the factor after each failure; the upper limit."""

TRIAL = 12.0
"""Batch times with all slots busy that a measurement needs."""

PATIENCE = 256
"""Batches within which a measurement must reach `TRIAL`; otherwise a trial ends."""

KEEP = 1.05
"""The allowed number may seem worse than one batch less by this factor, which covers the noise of measurements."""

OUTLIER = 1.5
"""A batch that runs longer than `OUTLIER * slots` times its time alone shows nothing about the others."""

STALE, AGAIN = 1024, 8
"""After `STALE` batches without one that ran alone, `AGAIN` batches run alone."""


class SpeedUp:
    """The number of batches that may be in flight, from the service times of recent batches.

    slots
        That number: 1 to `LIMIT`.
    """

    __slots__ = (
        *("slots", "_alone", "_speeds", "_running", "_starts", "_last", "_times", "_work", "_squares", "_began"),
        *("_trying", "_pause", "_watch", "_patience", "_seen", "_since_alone", "_kept"),
    )

    def __init__(self) -> None:
        """Initialise without measurements, with one slot."""
        self.slots = 1
        self._alone = CostModel()
        self._speeds = [0.0, 1.0]  # s(0), s(1), then the measured ones
        self._running: dict[object, bool] = {}  # each batch, and whether it has run alone so far
        self._starts: dict[object, tuple[float, int]] = {}  # start and size of each
        self._last = 0.0  # the time of the last event
        self._measure_anew()
        self._trying = False
        self._pause = PAUSE
        self._watch = 0  # batches until the next trial
        self._patience = 0  # batches in the trial, or since the last measurement
        self._seen = 0  # batches that ran alone
        self._since_alone = 0
        self._kept = 0  # slots to return to after batches run alone again; 0: not now

    def started(self, batch: object, size: int, now: float) -> None:
        """Record the start of a batch of `size` items."""
        self._pass(now)
        if self._running:
            for other in self._running:
                self._running[other] = False
        self._running[batch] = not self._running
        self._starts[batch] = now, size

    def finished(self, batch: object, size: int, seconds: float, waiting: int, now: float, *, well: bool) -> None:
        """Learn from the end of a batch of `size` items after `seconds` seconds, and adjust `slots`.

        `waiting` is the number of items that wait. A batch that did not end well restarts the measurement.
        """
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
        self._times: defaultdict[int, float] = defaultdict(float)  # T(0), T(1), ... from now on
        self._work = 0.0  # seconds that the batches that ended would take alone
        self._squares = 0.0  # the sum of the squares of these
        self._began = self._half_of_the_work()  # of the batches that run at the start

    def _half_of_the_work(self) -> float:
        """Return the expected work done in the running batches, which are half done on average."""
        return sum(self._alone.predict(size) for _, size in self._starts.values()) / 2

    def _judge(self, now: float) -> None:
        """Decide whether the last slot is worth it, once the measurement is long enough."""
        most = self.slots
        longest = OUTLIER * most
        if any(now - start > longest * self._alone.predict(size) for start, size in self._starts.values()):
            self._measure_anew()
        # The mean batch time at a random moment: large batches count for more.
        mean = self._squares / self._work if self._work else inf
        if self._times[most] < TRIAL * mean:
            if self._patience >= PATIENCE:  # the load is too low to matter, or too many batches fail
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
        # No division by `speed`: concurrent batches may do no work at all, and noise may make it negative.
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
