"""Statistics of a batcher: snapshots of its counters, and histograms."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from .policies.base import Reason

SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Upper bounds of the buckets for batch sizes, in items."""

TIME_BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets for times, in seconds."""


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """Snapshot of a histogram.

    bounds
        Upper bounds of the buckets, inclusive and ascending. One more bucket, above the last bound, is unbounded.
    counts
        Number of observations in each bucket (not cumulative): one element more than `bounds`.
    total
        Sum of all observations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean of the observations; 0 if there are none."""
        return self.total / self.count if self.count else 0.0


class Histogram:
    """Histogram that counts observations in buckets.

    An observation takes O(log n) time for n buckets, and allocates no memory.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Initialise empty buckets with these inclusive upper bounds, which must be ascending."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def observe_all(self, values: list[float]) -> None:
        """Count several observations; raise ValueError if there are none.

        This is fast if all values belong to one bucket, as usual for the items of a batch.
        """
        bounds, counts = self._bounds, self._counts
        low, high = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
        if low == high:
            counts[low] += len(values)
        else:
            for value in values:
                counts[bisect_left(bounds, value, low, high)] += 1
        self._total += sum(values)

    def snapshot(self) -> HistogramSnapshot:
        """Return an immutable copy of the current counts."""
        return HistogramSnapshot(self._bounds, tuple(self._counts), self._total)


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """The counters of a batcher at one consistent moment.

    Every item is counted in exactly one place. Therefore, in every snapshot,
    `submitted == completed + failed + cancelled + expired + stopped + rejected + queued + running`.

    submitted
        Items that callers submitted, including rejected items.
    completed
        Items that got their result.
    failed
        Items that failed with an error of `process_batch`.
    cancelled
        Items whose call was cancelled before the answer.
    expired
        Items whose timeout passed before the answer, or would have passed before the end of the next batch.
    stopped
        Accepted items that failed because the batcher was stopped by force or by a timeout.
    rejected
        Items that were not accepted: the queue was full, the batcher was stopped, or no answer in time was
        expected.
    queued
        Items that wait in the queue now.
    running
        Items in running batches now, without items whose call was cancelled.
    batches
        Calls of `process_batch` that were started.
    batches_in_flight
        Calls of `process_batch` that run now, without those that were given up.
    stalled
        Calls of `process_batch` that were given up after `batch_timeout` and have not returned yet.
    batch_size
        Items in each batch that was started.
    queue_wait
        Seconds from the acceptance of each item to the start of its first batch.
    service_time
        Seconds from the start to the end of each finished batch.
    reasons
        Number of batches by the reason for their start. The sum is `batches`.
    concurrency
        Largest number of batches in flight now: the option, or the choice of "auto"; -1: no limit.
    failed_batches
        Calls of `process_batch` that raised an exception or returned a wrong result, also if all their callers had
        left. A batch that `on_error="bisect"` divides is not counted, but its last parts are.
    padding
        Share of padding in the lengths of all items, if each is padded to the longest item of its batch: 0 to 1;
        0 without the option `length`.
    """

    submitted: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    stopped: int
    rejected: int
    queued: int
    running: int
    batches: int
    batches_in_flight: int
    stalled: int
    batch_size: HistogramSnapshot
    queue_wait: HistogramSnapshot
    service_time: HistogramSnapshot
    reasons: dict[Reason, int] = field(hash=False)
    concurrency: int
    failed_batches: int
    padding: float
