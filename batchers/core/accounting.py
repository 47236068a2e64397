"""Counters, histograms and recent dispatches of one batcher.

This module makes no decisions. It is pure.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

from batchers.policies.base import REASONS, Reason
from batchers.stats import SIZE_BOUNDS, TIME_BOUNDS, BatcherStats, Histogram

from .decisions import Batch, Dispatch
from .drain_rate import DrainRate
from .group_queue import Request

DISPATCHES_KEPT = 256

_Start: TypeAlias = tuple[float, int, Reason, float, int, int]
"""The first six fields of a `Dispatch`."""


class Accounting:
    """Counters, histograms and recent dispatches of one batcher.

    The core reports the events. Each request is counted exactly once, at the place where it is settled.
    All times are seconds of the batcher's clock.
    """

    __slots__ = (
        *("completed", "failed", "cancelled", "expired", "stopped", "rejected", "failed_batches"),
        *("drain", "_batches", "_batch_size", "_queue_wait", "_service_time", "_dispatches", "_reasons"),
        *("_length", "_padded"),
    )

    def __init__(self) -> None:
        """Initialise all counters with zero, the histograms and the list of dispatches as empty."""
        self.completed = self.failed = self.cancelled = 0
        self.expired = self.stopped = self.rejected = 0
        self.failed_batches = 0
        self.drain = DrainRate()
        self._batches = 0
        self._batch_size = Histogram(SIZE_BOUNDS)
        self._queue_wait = Histogram(TIME_BOUNDS)
        self._service_time = Histogram(TIME_BOUNDS)
        self._dispatches: deque[tuple[_Start, list[float]]] = deque(maxlen=DISPATCHES_KEPT)
        self._reasons: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._length = self._padded = 0.0  # of all items, and of all items padded to the longest of their batches

    def taken(self, requests: Sequence[Request[Any]], now: float) -> None:
        """Record the queue wait of requests that leave the queue for their first batch."""
        if len(requests) == 1:
            self._queue_wait.observe(now - requests[0].arrived)
        else:
            self._queue_wait.observe_all([now - request.arrived for request in requests])

    def started(self, batch: Batch[Any], reason: Reason, queued: int, in_flight: int) -> None:
        """Record the start of a batch.

        `queued` items remain in the queue, and `in_flight` batches run now, including this one.
        """
        requests, now = batch.requests, batch.started
        self._batches += 1
        self._batch_size.observe(len(requests))
        self._reasons[reason] += 1
        # A plain tuple, because few programs ask for dispatches: `dispatches` makes the named ones.
        start = (now, len(requests), reason, now - requests[0].arrived, queued, in_flight)
        self._dispatches.append((start, batch.took))

    def padded(self, lengths: Sequence[float]) -> None:
        """Record the lengths of the items of a batch that has started."""
        self._length += sum(lengths)
        self._padded += len(lengths) * max(lengths)

    def ended(self, batch: Batch[Any], now: float) -> None:
        """Record the end of a batch: its service time and its contribution to the drain rate."""
        seconds = now - batch.started
        batch.took.append(seconds)
        self._service_time.observe(seconds)
        self.drain.observe(len(batch.requests), batch.started, now)

    def dispatches(self) -> list[Dispatch]:
        """Return the last dispatches, oldest first: at most `DISPATCHES_KEPT`."""
        return [Dispatch(*start, took[0] if took else None) for start, took in self._dispatches]

    def stats(
        self, *, accepted: int, queued: int, running: int, in_flight: int, stalled: int, slots: int
    ) -> BatcherStats:
        """Return a snapshot of the counters and histograms, together with the current values that the core passes.

        `slots` is the current limit of batches in flight; sys.maxsize means no limit and is reported as -1.
        """
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
            failed_batches=self.failed_batches,
            padding=1 - self._length / self._padded if self._padded else 0.0,
        )
