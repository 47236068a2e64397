"""Measured drain rate of the queue, the source of `retry_after` in `QueueFullError`.

This module is pure.
"""

from __future__ import annotations

from math import inf

KEPT = 0.9
"""Decay factor: the share of the earlier sums that remains after each finished batch (about ten batches count)."""

SHORTEST, LONGEST = 0.001, 60.0
UNKNOWN = 1.0
"""Seconds: SHORTEST and LONGEST limit the estimate; UNKNOWN is the estimate before any batch has finished."""


class DrainRate:
    """Decaying sums of the finished items, and of the time during which at least one of their batches ran."""

    __slots__ = ("_busy", "_items", "_last_finish")

    def __init__(self) -> None:
        """Initialise both sums with zero: there is no measurement yet."""
        self._items = 0.0
        self._busy = 0.0
        self._last_finish = -inf

    def observe(self, items: int, started: float, finished: float) -> None:
        """Add a finished batch of `items` items to the sums.

        `started` and `finished` are times in seconds of the batcher's clock. The time that this
        batch shares with the batch that finished before it is counted once.
        """
        self._items = KEPT * self._items + items
        self._busy = KEPT * self._busy + finished - max(started, self._last_finish)
        self._last_finish = finished

    def seconds_for(self, items: int) -> float:
        """Return the seconds until `items` items have probably left: 0.001 to 60; 1.0 without a measurement."""
        if not self._items:
            return UNKNOWN
        return min(max(items * self._busy / self._items, SHORTEST), LONGEST)
