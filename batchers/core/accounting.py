"""Pure: what a batcher has done: counters, histograms, and its last decisions. It decides nothing."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from batchers.policies.base import REASONS, Reason
from batchers.stats import SIZE_BOUNDS, TIME_BOUNDS, BatcherStats, Histogram

from .decisions import Batch, Dispatch
from .drain_rate import DrainRate
from .group_queue import Request

DISPATCHES_KEPT = 256


class Accounting:
    """The books of one batcher. The core says what happens; each request is counted once, where it is settled."""

    __slots__ = (
        *("completed", "failed", "cancelled", "expired", "stopped", "rejected"),
        *("drain", "_batches", "_batch_size", "_queue_wait", "_service_time", "_dispatches", "_reasons"),
    )

    def __init__(self) -> None:
        """Begin with nothing."""
        self.completed = self.failed = self.cancelled = 0
        self.expired = self.stopped = self.rejected = 0
        self.drain = DrainRate()
        self._batches = 0
        self._batch_size = Histogram(SIZE_BOUNDS)
        self._queue_wait = Histogram(TIME_BOUNDS)
        self._service_time = Histogram(TIME_BOUNDS)
        self._dispatches: deque[tuple[Dispatch, list[float]]] = deque(maxlen=DISPATCHES_KEPT)
        self._reasons: dict[Reason, int] = dict.fromkeys(REASONS, 0)

    def taken(self, requests: Sequence[Request[Any]], now: float) -> None:
        """Note requests that leave the queue for their first batch."""
        self._queue_wait.observe_all([now - request.arrived for request in requests])

    def started(self, batch: Batch[Any], reason: Reason, queued: int, in_flight: int) -> None:
        """Note a batch that goes: it leaves so many items in the queue, and so many batches run now."""
        requests, now = batch.requests, batch.started
        self._batches += 1
        self._batch_size.observe(len(requests))
        self._reasons[reason] += 1
        start = Dispatch(now, len(requests), reason, now - requests[0].arrived, queued, in_flight)
        self._dispatches.append((start, batch.took))

    def ended(self, batch: Batch[Any], now: float) -> None:
        """Note the end of a batch."""
        seconds = now - batch.started
        batch.took.append(seconds)
        self._service_time.observe(seconds)
        self.drain.observe(len(batch.requests), batch.started, now)

    def dispatches(self) -> list[Dispatch]:
        """Return the last starts of batches, oldest first."""
        return [start._replace(seconds=took[0]) if took else start for start, took in self._dispatches]

    def stats(
        self, *, accepted: int, queued: int, running: int, in_flight: int, stalled: int, slots: int
    ) -> BatcherStats:
        """Return all of it, with what the core knows of this moment."""
        return BatcherStats(
            submitted=accepted + self.rejected,
            completed=self.completed,
            failed=self.failed,
            cancelled=self.cancelled,
            expired=self.expired,
            stopped=self.stopped,
            rejected=self.rejected,
            queued=queued,
            running=running,
            batches=self._batches,
            batches_in_flight=in_flight,
            stalled=stalled,
            batch_size=self._batch_size.snapshot(),
            queue_wait=self._queue_wait.snapshot(),
            service_time=self._service_time.snapshot(),
            reasons=dict(self._reasons),
            concurrency=slots if slots < sys.maxsize else -1,
        )
