"""Deadlines of the calls of a client: one timer on its home loop, for the earliest one."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Iterable
from contextvars import Context
from math import inf
from typing import Any, Protocol

from batchers.core.group_queue import Request
from batchers.core.indexed_heap import IndexedHeap
from batchers.drivers.loops import LONGEST_WAIT, Loop, cancel_timer


class Expires(Protocol):
    """The receiver of calls whose deadline has passed."""

    def expired(self, requests: list[Request[Any]], loop: Loop, /) -> None:
        """Fail these calls; on the loop."""
        ...


class Deadlines:
    """The deadlines; all methods but `leave` and `clear` run on the home loop."""

    clock = staticmethod(time.monotonic)

    def __init__(self, driver: Expires) -> None:
        """Initialise without calls; the driver is referred to weakly."""
        self._driver = weakref.ref(driver)
        self._heap: IndexedHeap[Request[Any]] = IndexedHeap()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._loop: Loop | None = None  # of the timer

    def add(self, requests: Iterable[Request[Any]]) -> None:
        """Watch the deadlines of these calls."""
        for request in requests:
            self._heap.put(request, request.deadline)

    def discard(self, request: Request[Any]) -> None:
        """Watch a call no more."""
        self._heap.discard(request)

    def clear(self) -> None:
        """Watch no call any more."""
        self._heap = IndexedHeap()

    def leave(self) -> None:
        """Cancel the timer, in any thread: the home loop changes, or the client ends."""
        timer, self._timer = self._timer, None
        cancel_timer(self._loop, timer)

    def watch(self, loop: Loop) -> None:
        """See that a timer rings at the earliest deadline, or before."""
        if not self._heap.keys:
            return
        until = self._heap.first_key()
        if self._timer is not None:
            if self._timer_at <= until:
                return  # it sets the next one, which costs less than a timer for each call
            self._timer.cancel()
        self._timer_at, self._loop = until, loop
        seconds = min(max(until - self.clock(), 0.0), LONGEST_WAIT)
        self._timer = loop.call_later(seconds, self._ring, context=Context())

    def _ring(self) -> None:
        loop, driver = asyncio.get_running_loop(), self._driver()
        if driver is None or loop is not self._loop:
            return
        self._timer = None
        now, heap, found = self.clock(), self._heap, []
        while heap.keys and heap.first_key() <= now:
            request = heap.first()
            heap.discard(request)
            found.append(request)
        driver.expired(found, loop)
