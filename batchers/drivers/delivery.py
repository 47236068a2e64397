"""The one place that resolves futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeAlias, TypeVar

from batchers.core.decisions import Settled
from batchers.core.group_queue import Request
from batchers.core.outcomes import Err, Outcome

from .loops import call_soon_threadsafe

logger = logging.getLogger("batchers")

T = TypeVar("T")
S = TypeVar("S")

Pairs: TypeAlias = list[tuple[Request[Any], Outcome[Any]]]


def deliver(settled: Settled[T, S], here: asyncio.AbstractEventLoop | None) -> None:
    """Give each caller its outcome. `here` is the loop that runs in this thread, if one does.

    Threads and coroutines of this loop get theirs at once; each other loop is called once for all of
    its callers. A loop that is closed has no callers any more.
    """
    near: Pairs = []
    far: dict[asyncio.AbstractEventLoop, Pairs] = {}
    for pair in settled:
        loop: Any = pair[0].loop
        if loop is here or loop is None:
            near.append(pair)
        else:
            far.setdefault(loop, []).append(pair)
    for loop, pairs in far.items():
        call_soon_threadsafe(loop, _resolve, pairs)
    _resolve(near)


def _resolve(pairs: Pairs) -> None:
    """Resolve the future of each request, whatever a callback of one of them raises.

    After an exception the request at which it struck is tried once more, because its future may not be resolved
    yet.
    """
    interrupt: BaseException | None = None
    rest = iter(pairs)
    again: tuple[tuple[Request[Any], Outcome[Any]], ...] = ()
    pair = tried = None
    while True:
        try:
            for pair in chain(again, rest):
                request, outcome = pair
                future: Any = request.future
                if request.loop is not None:
                    if future.done():  # only its own loop touches it, so this stays so
                        continue
                elif type(future) is not Waiter and not _claim(future):
                    continue
                if type(outcome) is Err:
                    future.set_exception(outcome.error)
                else:
                    future.set_result(outcome)
            break
        except BaseException as error:
            # Out of a callback that a user has put on the future, or Ctrl-C. The other callers get their outcomes.
            again = () if pair is None or pair is tried else (pair,)
            tried = pair
            if threading.current_thread() is threading.main_thread() and not isinstance(error, Exception):
                interrupt = error
            else:
                logger.exception("A callback of a future has raised what it must not")
    if interrupt is not None:
        raise interrupt


def notify_cancelled(future: Any) -> None:  # noqa: ANN401 - a request knows no type of its future
    """Tell those who wait in `concurrent.futures.wait` that a thread's future was cancelled."""
    future.set_running_or_notify_cancel()


def _claim(future: concurrent.futures.Future[Any]) -> bool:
    """Whether a thread still waits; one that has left keeps its cancellation.

    It may be cancelled at any moment, so the future decides under its own lock, and tells whoever waits for it
    in `concurrent.futures.wait`.
    """
    if future.running():  # claimed already, and interrupted
        return True
    if future.done() and not future.cancelled():
        return False
    return future.set_running_or_notify_cancel()


class CancelCallback:
    """Withdraws a thread's request when its future is cancelled; refers to nothing once the future is done."""

    __slots__ = ("_of",)

    def __init__(self, cancel: Callable[[Request[Any]], None], request: Request[Any]) -> None:
        """Name what withdraws, and the request."""
        self._of: tuple[Callable[[Request[Any]], None], Request[Any]] | None = (cancel, request)

    def forget(self) -> None:
        """There is nothing to withdraw: the request was not accepted."""
        self._of = None

    def __call__(self, future: concurrent.futures.Future[Any]) -> None:
        """Withdraw the request if its future was cancelled."""
        if self._of is not None:
            (cancel, request), self._of = self._of, None
            if future.cancelled():
                cancel(request)


class Waiter:
    """What one call of a thread waits for: a lock, released when the outcome is there.

    A `concurrent.futures.Future` may be shared, asked, cancelled and given callbacks, for which it takes a
    Condition and more locking (decision 26).
    """

    __slots__ = ("_error", "_lock", "_result")

    def __init__(self) -> None:
        """Start without an outcome."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._error: Exception | None = None
        self._result: Any = None

    def wait(self) -> None:
        """Return when the outcome is there. A signal handler may raise out of it."""
        self._lock.acquire()

    def result(self) -> Any:  # noqa: ANN401 - the caller's
        """Return the result, or raise the error."""
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            del self  # the error holds this frame

    def set_result(self, result: object) -> None:
        """Let the caller go with a result."""
        self._result = result
        self._release()

    def set_exception(self, error: Exception) -> None:
        """Let the caller go with an error."""
        self._error = error
        self._release()

    def _release(self) -> None:
        if self._lock.locked():  # else it was interrupted right after this
            self._lock.release()


MISSING = object()
"""Stands for a result that is not there yet."""


class GatheredResults:
    """One future for several items of one coroutine: it has all results, or the first error, at once."""

    __slots__ = ("future", "missing", "results")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start without items."""
        self.future: asyncio.Future[list[Any]] = loop.create_future()
        self.results: list[Any] = []
        self.missing = 0

    def slot(self) -> ResultSlot:
        """Return what stands for the future of one more item."""
        self.results.append(MISSING)
        self.missing += 1
        return ResultSlot(self, len(self.results) - 1)


class ResultSlot:
    """What is resolved for one item of gathered results. Only the loop of their caller touches it."""

    __slots__ = ("_gathered", "_place")

    def __init__(self, gathered: GatheredResults, place: int) -> None:
        """Stand for the item at this place."""
        self._gathered = gathered
        self._place = place

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._gathered.future.done()

    def set_result(self, result: object) -> None:
        """Keep a result; the last one wakes the caller. The second time nothing happens."""
        gathered = self._gathered
        if gathered.results[self._place] is not MISSING:
            return
        gathered.results[self._place] = result
        gathered.missing -= 1
        if not gathered.missing:
            gathered.future.set_result(gathered.results)

    def set_exception(self, error: Exception) -> None:
        """Wake the caller with the first error."""
        self._gathered.future.set_exception(error)
