"""Delivery of outcomes: only this module resolves the futures of requests."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeAlias, TypeVar

from batchers.core.decisions import Settled
from batchers.core.group_queue import Request
from batchers.core.outcomes import Err, Outcome
from batchers.errors import note_index

from .futures import SharedFuture
from .loops import call_soon_threadsafe
from .threads import DaemonThread, StartError

logger = logging.getLogger("batchers")

T = TypeVar("T")
S = TypeVar("S")

HELD_SECONDS = 0.01
"""Seconds that a delivery waits for the lock of one future, after all others have their outcomes."""

Pair: TypeAlias = tuple[Request[Any], Outcome[Any]]


def deliver(settled: Settled[T, S], here: asyncio.AbstractEventLoop | None) -> None:
    """Deliver its outcome to each caller.

    `here` is the event loop that runs in the calling thread, or None. Threads and coroutines of the loop `here`
    get their outcomes at once. Each other loop gets one callback for all of its callers. A closed loop is skipped,
    because it has no callers any more.
    """
    for request, _ in settled:
        if request.loop is not here and request.loop is not None:
            break
    else:
        _resolve(settled)
        return
    far: defaultdict[Any, list[Pair]] = defaultdict(list)
    for pair in settled:
        if (loop := pair[0].loop) is not here and loop is not None:
            far[loop].append(pair)
    for loop, pairs in far.items():
        call_soon_threadsafe(loop, _resolve, pairs)
    _resolve([pair for pair in settled if (loop := pair[0].loop) is here or loop is None])


def _resolve(pairs: Sequence[Pair]) -> None:  # noqa: C901 - for every call: another function costs time
    """Resolve the future of each request, even if a callback of one of the futures raises an exception.

    After an exception, the request that was in progress is tried once more, because its future may not be resolved
    yet. An exception in the main thread that is no `Exception` (for example KeyboardInterrupt) is raised again at
    the end. Other exceptions are logged. Futures whose lock another thread holds come last.
    """
    interrupt: BaseException | None = None
    rest = iter(pairs)
    again: tuple[Pair, ...] = ()
    pair = tried = None
    held: list[Pair] = []
    while True:
        try:
            for pair in chain(again, rest):
                request, outcome = pair
                future: Any = request.future
                if type(future) is SharedFuture:
                    if not future.resolve(outcome, 0.0, again=pair is tried):
                        held.append(pair)
                    request.item = None
                    continue
                request.item = None
                if request.loop is not None and future.done():  # only its loop changes it, so this stays valid
                    continue
                if type(outcome) is Err:
                    future.set_exception(outcome.error)
                else:
                    future.set_result(outcome)
            break
        except BaseException as error:
            # From a callback that a user has added to the future, or Ctrl-C. Other callers need their outcomes.
            _unlock(pair)  # first, because another exception may come
            again = () if pair is None or pair is tried else (pair,)
            tried = pair
            if threading.current_thread() is threading.main_thread() and not isinstance(error, Exception):
                interrupt = error
            else:
                logger.exception("A callback of a future has raised what it must not")
    for request, outcome in held:
        _resolve_held(request.future, outcome)
    if interrupt is not None:
        raise interrupt


def _unlock(pair: Pair | None) -> None:
    """Release the lock of the future that this thread was resolving when an exception struck."""
    if pair is not None and type(pair[0].future) is SharedFuture:
        pair[0].future.unlock()


def _resolve_held(future: Any, outcome: Outcome[Any]) -> None:  # noqa: ANN401 - a request does not specify its type
    """Resolve a future whose lock another thread holds: after HELD_SECONDS in a thread that waits for the lock.

    If an exception interrupts `future.result()`, CPython may leave the lock held for ever. It is reentrant, so the
    thread that holds it can still ask for the result.
    """
    if not future.resolve(outcome, HELD_SECONDS):
        try:
            DaemonThread(lambda _: future.resolve(outcome, -1), "batcher-future")
        except StartError:  # now all others wait too
            future.resolve(outcome, -1)


def release(request: Request[Any]) -> None:
    """Drop the item of a withdrawn request, and notify threads in `concurrent.futures.wait`; called once."""
    request.item = None
    if type(request.future) is SharedFuture and request.future.cancelled():
        request.future.set_running_or_notify_cancel()


class CancelCallback:
    """Callback that withdraws the request of a thread when its future is cancelled.

    It refers to nothing after the future is done.
    """

    __slots__ = ("_of",)

    def __init__(self, cancel: Callable[[Request[Any]], None], request: Request[Any]) -> None:
        """Store the request, and the function `cancel` that withdraws it."""
        self._of: tuple[Callable[[Request[Any]], None], Request[Any]] | None = (cancel, request)

    def forget(self) -> None:
        """Disable the callback, because the request was not accepted."""
        self._of = None

    def __call__(self, future: concurrent.futures.Future[Any]) -> None:
        """Withdraw the request if its future was cancelled."""
        if self._of is not None:
            (cancel, request), self._of = self._of, None
            if future.cancelled():
                cancel(request)


class Waiter:
    """Minimal future for one call of a thread: a lock, which is released when the outcome is available.

    A `concurrent.futures.Future` can be shared, queried and cancelled, and has callbacks. For these features it
    needs a Condition and more locking (decision 26).
    """

    __slots__ = ("_error", "_lock", "_result")

    def __init__(self) -> None:
        """Initialise the waiter without an outcome, and acquire its lock."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._error: Exception | None = None
        self._result: Any = None

    def wait(self) -> None:
        """Block until the outcome is available; a signal handler may interrupt the wait with an exception."""
        self._lock.acquire()

    def result(self) -> Any:  # noqa: ANN401 - the type is the caller's
        """Return the result, or raise the error, of a call whose outcome is available."""
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            del self  # breaks a cycle: the traceback of the error refers to this frame

    def set_result(self, result: object) -> None:
        """Store the result, and wake the caller."""
        self._result = result
        self._release()

    def set_exception(self, error: Exception) -> None:
        """Store the error, and wake the caller."""
        self._error = error
        self._release()

    def _release(self) -> None:
        if self._lock.locked():  # otherwise, an earlier delivery was interrupted after the release
            self._lock.release()


MISSING = object()
"""Placeholder for a result that is not available yet."""


class GatheredResults:
    """One future for several items of one coroutine.

    The future is resolved with all results together, or with the first error.
    """

    __slots__ = ("future", "missing", "results")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Create the future on `loop`, with an empty list of results."""
        self.future: asyncio.Future[list[Any]] = loop.create_future()
        self.results: list[Any] = []
        self.missing = 0

    def slot(self) -> ResultSlot:
        """Add one item, and return the object that replaces its future."""
        self.results.append(MISSING)
        self.missing += 1
        return ResultSlot(self, len(self.results) - 1)


class ResultSlot:
    """Replacement for the future of one item of `GatheredResults`.

    Only the loop of the caller uses it.
    """

    __slots__ = ("_gathered", "_place")

    def __init__(self, gathered: GatheredResults, place: int) -> None:
        """Store the gathered results, and the index of the item in them."""
        self._gathered = gathered
        self._place = place

    def done(self) -> bool:
        """Return True if the caller does not wait for this item any more."""
        return self._gathered.future.done()

    def set_result(self, result: object) -> None:
        """Store the result, and wake the caller if it is the last one; a second call has no effect."""
        gathered = self._gathered
        if gathered.results[self._place] is not MISSING:
            return
        gathered.results[self._place] = result
        gathered.missing -= 1
        if not gathered.missing:
            gathered.future.set_result(gathered.results)

    def set_exception(self, error: Exception) -> None:
        """Wake the caller with this error, the first one; a note of the error has the index of its item."""
        note_index(error, self._place)
        self._gathered.future.set_exception(error)
