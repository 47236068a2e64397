"""Pure: how fast the queue drains, for callers that come to a full one."""

from __future__ import annotations

from math import inf

KEPT = 0.9
"""What a finished batch leaves of the sums before it: they span about ten batches."""

SHORTEST, LONGEST = 0.001, 60.0
UNKNOWN = 1.0
"""Seconds; the last one is for a batcher that has not finished any batch."""


class DrainRate:
    """Decaying sums of finished items and of the time in which at least one batch ran for them."""

    __slots__ = ("_busy", "_items", "_last_finish")

    def __init__(self) -> None:
        """Start without a measurement."""
        self._items = 0.0
        self._busy = 0.0
        self._last_finish = -inf

    def observe(self, items: int, started: float, finished: float) -> None:
        """Note a batch. Time that it shared with the batch that finished before it counts once."""
        self._items = KEPT * self._items + items
        self._busy = KEPT * self._busy + finished - max(started, self._last_finish)
        self._last_finish = finished

    def seconds_for(self, items: int) -> float:
        """Return the seconds in which so many items are probably gone; 0.001 to 60."""
        if not self._items:
            return UNKNOWN
        return min(max(items * self._busy / self._items, SHORTEST), LONGEST)
