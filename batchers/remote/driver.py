"""`RemoteDriver`: the calls of a client that wait for their answers, and the loop on which its connection lives.

Theory of operation
===================

The driver decides nothing: it has a number for each call, sends it, and delivers the outcome that comes back with
the number. It also keeps the deadlines, because a process that was stopped answers nothing.

Calls come from any thread. They are put into a dict and a deque, which takes no lock, and the *home loop* sends
all of them in its next turn, in one frame. As in the asyncio driver, the home loop is that of the first coroutine
that calls; if calls come from elsewhere, or that loop has ended, the driver moves to another loop: its own, in a
thread, or that of the next caller. The connection is a plain socket, so it moves along.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from math import inf
from typing import Any, Generic, TypeVar

from batchers.checks import as_float
from batchers.core.decisions import Dispatch
from batchers.core.group_queue import RUNNING, Request
from batchers.core.outcomes import Err
from batchers.drivers import lifetime
from batchers.drivers.delivery import deliver, release
from batchers.drivers.futures import SharedFuture
from batchers.drivers.loops import Loop, LoopThread, call_soon_threadsafe
from batchers.drivers.requests import RequestFactory
from batchers.drivers.threads import DaemonThread
from batchers.errors import BatcherStoppedError, DeadlineExceededError, OptionError
from batchers.options import Changes, Options
from batchers.stats import BatcherStats

from . import reports
from .codecs import to_json
from .connection import LOST, Link, finalize
from .deadlines import Deadlines
from .policies import said
from .sending import Question, check_room

logger = logging.getLogger("batchers")

T = TypeVar("T")
S = TypeVar("S")


class RemoteDriver(Generic[T, S]):
    """The calls of one client."""

    clock = staticmethod(time.monotonic)
    function = None
    batcher_id = None

    def __init__(self, name: str, options: Options, link: Link) -> None:
        """Initialise the driver; nothing is connected or started."""
        self.name = name
        self.options = options
        self.link = link
        self.about: dict[str, Any] = {}
        finalize(link, self)
        self._reset(orphaned=False)
        lifetime.watch(self)

    def _reset(self, *, orphaned: bool) -> None:
        self.requests: RequestFactory[T] = RequestFactory(self.options, self.clock, orphaned=False)
        self.home: Loop | None = None
        self.stopped: SharedFuture[None] = SharedFuture()
        self._lock = threading.RLock()  # of `home`
        self._own: LoopThread | None = None
        if not orphaned:
            self._numbers = itertools.count(1)
        self._pending: dict[int, Request[Any]] = {}
        self._new: deque[Sequence[Request[Any]]] = deque()  # calls that the home loop has not seen
        self._unsent: list[Sequence[Request[Any]]] = []  # calls that it has seen
        self._left: deque[Request[Any]] = deque()  # withdrawn
        self._deadlines = Deadlines(self)
        self._flushes = False  # True while a flush is planned
        self._started = False
        self._closed = False
        self._forced = False  # True until the server is told that the calls that wait fail
        self._abandoned = False

    # Calls, in any thread

    def accept(
        self, item: T, timeout: float | None, priority: int, future: object, here: Loop | None
    ) -> Request[T]:
        """Submit one item, and return its request."""
        if timeout is None and self.requests.plain and type(priority) is int:
            request = Request(item, None, priority, 0.0, inf, future, here)
        else:
            request = self.requests.make(item, timeout, priority, future, here)
        self.admit((request,), here)
        return request

    def admit(self, requests: Sequence[Request[Any]], here: Loop | None) -> None:
        """Submit the requests of one call: all, or raise an error and submit none."""
        self._check_open()
        if not requests:
            return
        link = self.link
        if link.state == LOST and self.clock() < link.next_attempt:
            raise link.unavailable()
        check_room(len(requests), len(self._pending), self.options.queue_limit)
        try:
            if here is None or here is not self.home:
                self._settle(here)
            for request in requests:
                request.number = next(self._numbers)
                self._pending[request.number] = request
            link.kept = self
            self._new.append(requests)
            self._check_open()  # again: a stop in another thread may not have seen these requests
            if not self._flushes:
                self._plan_flush(here)
        except BaseException:
            for request in requests:
                self._pending.pop(getattr(request, "number", 0), None)
            if self._closed and not self._pending:
                self._end()
            raise

    def _check_open(self) -> None:
        if self._closed:
            msg = "the client was stopped: connect again"
            raise BatcherStoppedError(msg)

    def cancel(self, request: Request[Any], here: Loop | None = None) -> None:
        """Withdraw the request of a caller that leaves; do nothing if it is settled."""
        if self._pending.pop(getattr(request, "number", 0), None) is None:
            return
        self._left.append(request)
        self._plan_flush(here)
        release(request)

    async def ask(self, name: str, payload: bytes, timeout: float | None, here: Loop) -> Any:  # noqa: ANN401
        """Return the answer to a question."""
        seconds = inf if timeout is None else as_float(timeout)
        if seconds is None or seconds != seconds:  # noqa: PLR0124 - NaN
            msg = f"timeout must be a number of seconds, not {timeout!r}"
            raise OptionError(msg)
        future: asyncio.Future[Any] = here.create_future()
        question = Question(name, payload, self.clock() + seconds, future, here)
        self.admit((question,), here)
        try:
            return await future
        except BaseException:
            future.cancel()
            self.cancel(question, here)
            raise

    def start(self, here: Loop | None) -> None:
        """Choose the loop, and begin to connect; do nothing after the end."""
        if not self._closed:
            self._settle(here)
            self._started = True
            self._plan_flush(here)

    # The home loop

    def _settle(self, here: Loop | None) -> None:
        """See that there is a home loop that runs: that of the only caller, or an own one."""
        with self._lock:
            home = self.home
            is_alive = home is not None and home.is_running()
            own = self._own
            if own is not None and home is own.loop and own.is_running:
                return
            if is_alive and home is here:
                return
            if here is not None and not is_alive:
                new: Loop = here
            else:
                if own is None or not own.is_running:
                    own = self._own = LoopThread(f"{self.name}-loop", weakref.WeakMethod(self.flush))
                    weakref.finalize(self, own.stop_soon).atexit = False
                new = own.loop
            self._deadlines.leave()
            self.home = new
            try:
                self._flushes = True
                call_soon_threadsafe(new, self._arrive)
            except BaseException:
                self.home, self._flushes = None, False  # the next call settles
                raise

    def _arrive(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self.home:
            self.link.arrive(loop)
            self.flush()

    def _plan_flush(self, here: Loop | None) -> None:
        if self._flushes:
            return
        self._flushes = True
        home = self.home
        try:
            if home is None:
                self._flushes = False
            elif home is here:
                home.call_soon(self.flush, context=Context())
            elif not call_soon_threadsafe(home, self.flush):
                self._settle(here)
        except BaseException:
            self._flushes = False  # the next call plans one
            raise

    def flush(self) -> None:
        """Send what is new, and see to deadlines; on the home loop."""
        loop = asyncio.get_running_loop()
        if loop is not self.home:
            return  # the new home loop does it
        self._flushes = False
        pending, unsent, deadlines = self._pending, self._unsent, self._deadlines
        while self._new:
            call = self._new[0]
            if call[0].deadline < inf:
                deadlines.add(call)
            unsent.append(call)
            self._new.popleft()  # last: an exception from outside may come between, and a call is not sent twice
        withdrawn: list[int] = []
        while self._left:
            request = self._left.popleft()
            deadlines.discard(request)
            if request.state == RUNNING:
                withdrawn.append(request.number)
        if unsent:
            unsent[:] = [
                call
                for call in unsent
                if call[0].state != RUNNING and all(each.number in pending for each in call)
            ]
        forced, self._forced = self._forced, False
        settled = self.link.flush(unsent, withdrawn, loop, forced=forced)
        self.deliver(settled, loop)
        deadlines.watch(loop)
        if self._closed and not pending:
            self._end()

    def expired(self, requests: list[Request[Any]], loop: Loop) -> None:
        """Fail calls whose deadline has passed, and withdraw them."""
        settled = []
        for request in requests:
            if self._pending.pop(request.number, None) is not None:
                msg = (
                    "no answer of the server in time: give the call a longer timeout, or see what the server does"
                )
                settled.append((request, Err(DeadlineExceededError(msg))))
                self._left.append(request)
        self.deliver(settled, loop)
        self.flush()

    # Outcomes, on the home loop

    def take(self, number: int) -> Request[Any] | None:
        """Return the request with a number, and wait for its outcome no more; None: its caller has left."""
        request = self._pending.pop(number, None)
        if request is not None and request.deadline < inf:
            self._deadlines.discard(request)
        return request

    def take_all(self) -> list[Request[Any]]:
        """Return all requests, and wait for none any more."""
        self._unsent.clear()
        self._new.clear()
        self._deadlines.clear()
        found = []
        while self._pending:
            try:
                found.append(self._pending.popitem()[1])
            except KeyError:  # another thread has withdrawn the last one
                break
        return found[::-1]

    def deliver(self, settled: list[tuple[Request[Any], Any]], loop: Loop | None) -> None:
        """Deliver outcomes to their callers."""
        if settled:
            deliver(settled, loop)
        if not self._pending:
            self.link.kept = None
            if self._pending:  # meanwhile, in another thread
                self.link.kept = self
            elif self._closed and not self.stopped.done():
                self._end()

    # Shutdown

    @property
    def running(self) -> bool:
        """True if the client was started, by `start` or by its first call, and has not ended since."""
        return (self._started or self.home is not None) and not self.stopped.done()

    def close(self, here: Loop | None, *, force: bool) -> None:
        """Accept no more calls; with `force`, fail those that wait, here or in the queue of the server."""
        self._closed = True
        if force:
            self._forced = True
            unsent = [each for each in list(self._pending.values()) if each.state != RUNNING]
            waiting = [each for each in unsent if self._pending.pop(each.number, None) is not None]
            text = "the client was stopped while the call waited to be sent"
            self.deliver([(request, Err(BatcherStoppedError(text))) for request in waiting], here)
        if not self._pending:
            self._end()
        else:
            self._plan_flush(here)

    def abandon(self, here: Loop | None, timeout: float | None) -> bool:
        """Fail all calls that have no answer; return True if there were any, in this call or before."""
        if self.stopped.done():
            return self._abandoned
        self._abandoned = True
        state = self.describe()
        found = self.take_all()
        logger.warning(
            "%s did not end within %s s; %d callers got BatcherStoppedError", state, timeout, len(found)
        )
        text = "the client was stopped before the answer came"
        self.deliver([(request, Err(BatcherStoppedError(text))) for request in found], here)
        self._end()
        return True

    def _end(self) -> None:
        """Close the connection, which withdraws what the server still has, and end the own thread."""
        self.link.close()
        self.link.kept = None
        self._deadlines.leave()
        if self._own is not None:
            self._own.stop_soon()
        self.stopped.resolve(None, -1, again=True)

    def after_fork(self) -> None:
        """Drop the connection in the child of a fork, which makes its own; the calls are the parent's."""
        was_closed = self._closed
        self.link.abandon_in_child()
        self._reset(orphaned=True)
        if was_closed:
            self.close(None, force=True)

    def at_exit(self) -> concurrent.futures.Future[None] | None:
        """Wait for the answers of threads before the interpreter ends."""
        if self._own is None:
            return None
        self.close(None, force=False)
        return self.stopped

    def refuse_wait(self, call: str, instead: str) -> None:
        """Raise BatcherError if this thread would wait for itself."""
        if sys.is_finalizing():
            msg = f"{call} came at the end of the interpreter, where no thread waits for the answer: {instead}"
            raise BatcherStoppedError(msg)

    def own_threads(self, *, busy: bool) -> list[DaemonThread]:  # noqa: ARG002 - the thread waits for answers only
        """Return the thread of the own loop, if there is one."""
        return [] if self._own is None else [self._own.thread]

    def leftovers(self, _: Loop | None) -> set[asyncio.Task[None]]:
        """Return no task."""
        return set()

    # Reports

    @property
    def healthy(self) -> bool:
        """False while there is no connection after one was lost, or was not possible; and what the server says."""
        return self.link.state != LOST and self.link.healthy

    def stats(self) -> BatcherStats:
        """Return the counters of the served batcher."""
        return reports.stats(self.link.path)

    def dispatches(self) -> list[Dispatch]:
        """Return the most recent starts of batches of the served batcher."""
        return reports.dispatches(self.link.path)

    def dump(self) -> str:
        """Return the state of the client, and the report of the served batcher."""
        return f"{self.describe()}\n{reports.ask(self.link.path, 'dump').decode()}"

    def reconfigure(self, changes: Changes) -> None:
        """Change options of the served batcher. Raises its OptionError."""
        reports.ask(self.link.path, "reconfigure", to_json(said(changes)))

    def describe(self) -> str:
        """Return the state of the client in one line."""
        state = "stopped" if self.stopped.done() else "stopping" if self._closed else self.link.state
        return f"<RemoteBatcher {self.name!r} {state}, {len(self._pending)} pending, at {self.link.path}>"
