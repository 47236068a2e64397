"""What a batcher has done: counters that only grow, and frozen snapshots of them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from .policies.base import Reason

SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Upper ends of the buckets for batch sizes, in items."""

TIME_BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper ends of the buckets for times, in seconds."""


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """How many observations fell into each bucket."""

    bounds: tuple[float, ...]
    """Upper ends of the buckets, inclusive, rising; one more bucket above the last has no end."""

    counts: tuple[int, ...]
    """Observations in each bucket (not cumulative); one longer than `bounds`."""

    total: float
    """Sum of all observations."""

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean of the observations; 0 when there are none."""
        return self.total / self.count if self.count else 0.0


class Histogram:
    """Counts observations in buckets. O(log of the number of buckets) for each one, no allocation."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Start with all buckets empty."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def observe_all(self, values: list[float]) -> None:
        """Count many observations, at least one. Cheap where they fall into one bucket, as in a batch."""
        bounds, counts = self._bounds, self._counts
        low, high = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
        if low == high:
            counts[low] += len(values)
        else:
            for value in values:
                counts[bisect_left(bounds, value, low, high)] += 1
        self._total += sum(values)

    def snapshot(self) -> HistogramSnapshot:
        """Return the buckets as they are now."""
        return HistogramSnapshot(self._bounds, tuple(self._counts), self._total)


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """One consistent moment of a batcher.

    Every call is counted in exactly one place, so in every snapshot
    `submitted == completed + failed + cancelled + expired + stopped + rejected + queued + running`.
    """

    submitted: int
    """Items that callers handed in, refused ones included."""

    completed: int
    """Items that got their result."""

    failed: int
    """Items that got an error from `process_batch`."""

    cancelled: int
    """Items whose caller left before the answer."""

    expired: int
    """Items whose timeout passed before the answer, or would have passed before the end of the next batch."""

    stopped: int
    """Accepted items that failed because the batcher was stopped by force or by a timeout."""

    rejected: int
    """Items that were not accepted: queue full, batcher stopped, or no answer in time to be expected."""

    queued: int
    """Items that wait now."""

    running: int
    """Items in running batches now, without those whose caller has left."""

    batches: int
    """Calls of `process_batch` that were started."""

    batches_in_flight: int
    """Calls of `process_batch` that are running now."""

    stalled: int
    """Calls of `process_batch` that were given up after `batch_timeout`, and have not returned yet."""

    batch_size: HistogramSnapshot
    """Items in each started batch."""

    queue_wait: HistogramSnapshot
    """Seconds from acceptance to the start of the item's first batch."""

    service_time: HistogramSnapshot
    """Seconds that each finished batch took."""

    reasons: dict[Reason, int] = field(hash=False)
    """Started batches by the reason for which they went; the sum is `batches`."""

    concurrency: int
    """Batches that may be in flight now: the option, or what "auto" has chosen; -1: no limit."""
