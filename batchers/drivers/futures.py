"""`SharedFuture`: a future whose outcome and callbacks survive exceptions in the thread that sets them."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from batchers.core.outcomes import Err, Outcome

S = TypeVar("S")

logger = logging.getLogger("batchers")

_DELIVERED = ("FINISHED", "CANCELLED_AND_NOTIFIED")
"""States of a `concurrent.futures.Future` that has its outcome, and has notified all threads of it."""


class SharedFuture(concurrent.futures.Future[S]):
    """Future of `submit`, and of the ends of threads and drivers, which any thread may query and wait for.

    Its delivery does not wait for the lock of the future, and may be repeated.
    """

    _resolver: int | None = None  # identifier of the thread that resolves it and holds its lock

    def resolve(self, outcome: Outcome[S], seconds: float, *, again: bool = False) -> bool:
        """Set the outcome, and run the callbacks; return False if the lock is held for so many seconds (-1: wait).

        A future that was cancelled stays cancelled, and one with an outcome keeps it. `again`: an exception has
        interrupted the first attempt of this thread, which may have left the lock held.
        """
        lock: Any = self._condition
        is_inside: Callable[[], bool] = lock._is_owned  # noqa: SLF001 - as the class Condition uses it
        was_inside = is_inside() and not again  # in a method of the base class, where CPython runs a finalizer
        held = False
        try:
            if not lock.acquire(seconds != 0, timeout=seconds or -1):
                return False
            held = True
            self._resolver = threading.get_ident()
            if self._state in _DELIVERED and again:
                self._notify_again()
            # The second part notifies the threads in `concurrent.futures.wait`, also for a cancelled future.
            if self._state not in _DELIVERED and (self.running() or self.set_running_or_notify_cancel()):
                if type(outcome) is Err:
                    self.set_exception(outcome.error)
                else:
                    self.set_result(cast("S", outcome))
        finally:
            self._resolver = None
            if held:
                lock.release()
            while is_inside() and not was_inside:  # after an exception next to the acquisition or a release
                lock.release()
        try:
            self._invoke_callbacks()
        finally:
            while is_inside() and not was_inside:  # as above
                lock.release()
        return True

    def unlock(self) -> None:
        """Release the lock if this thread holds it, because an exception has interrupted it before the release."""
        lock: Any = self._condition
        while lock._is_owned():  # noqa: SLF001 - as the class Condition uses it
            self._resolver = None
            lock.release()

    def _notify_again(self) -> None:
        """Notify the threads that wait, which the first attempt may not have come to; holds the lock."""
        self._condition.notify_all()
        waiters: list[Any] = self._waiters  # private: those of `concurrent.futures.wait`
        for waiter in waiters:
            if self not in waiter.finished_futures:
                add = waiter.add_result if self._state == "FINISHED" else waiter.add_cancelled
                add(self)

    def _invoke_callbacks(self) -> None:
        """Run each callback once, but not while this thread holds the lock to set the outcome.

        If an exception from outside interrupts this, the next call runs those that are left.
        """
        if self._resolver == threading.get_ident():
            return
        callbacks: list[Callable[[Any], object]] = self._done_callbacks  # type: ignore[attr-defined]  # private
        while callbacks:
            with suppress(IndexError):  # another thread was faster
                callback = callbacks.pop(0)
                try:
                    callback(self)
                except Exception:
                    logger.exception("exception calling callback for %r", self)
