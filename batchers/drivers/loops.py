"""Event loops: calls into a loop from another thread, and a loop in a thread that the batcher starts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeAlias, TypeVar

from .threads import DaemonThread, StartError, need_frames

R = TypeVar("R")

Loop: TypeAlias = asyncio.AbstractEventLoop

logger = logging.getLogger("batchers")

RETRY_SECONDS = 0.01
"""Seconds before an operation is retried that failed for lack of memory."""

LONGEST_WAIT = 86_400.0
"""Seconds of the longest single wait.

A longer or unlimited wait is divided into waits of this length. Neither Conditions nor all event loops
accept an infinite timeout.
"""

CLEANUP_SECONDS = 1.0
"""Seconds that cancelled coroutines have for their cleanup."""


running_loop = asyncio._get_running_loop  # noqa: SLF001 - in `asyncio.__all__`; `get_running_loop` raises if none runs
"""Return the event loop that runs in the calling thread, or None if there is none."""


def call_soon_threadsafe(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> bool:
    """Schedule a callback, in an empty context, on a loop of any thread; return False if the loop is closed.

    On MemoryError, the function sleeps for RETRY_SECONDS and retries until it succeeds, because a caller on that
    loop might otherwise wait for ever. It waits for nothing but memory, so it may be called with a lock held. A
    RuntimeError of a loop that is not closed is raised again.
    """
    while True:
        try:
            loop.call_soon_threadsafe(callback, *args, context=Context())
        except MemoryError:
            time.sleep(RETRY_SECONDS)
        except RuntimeError:
            if not loop.is_closed():
                raise
            return False
        else:
            return True


def cancel_timer(loop: Loop | None, timer: asyncio.TimerHandle | None) -> None:
    """Cancel a timer of a loop of any thread; do nothing if there is no timer, or if the loop is closed."""
    if timer is None or loop is None or loop.is_closed():
        return
    if loop is running_loop() or not loop.is_running():
        timer.cancel()
    else:
        call_soon_threadsafe(loop, timer.cancel)


class _Running:
    """A coroutine that runs on a loop, and its task, as soon as there is one."""

    __slots__ = ("coroutine", "task")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Store the coroutine."""
        self.coroutine = coroutine
        self.task: asyncio.Task[Any] | None = None


class LoopThread:
    """An event loop in a separate thread, for code that does not run on an event loop.

    An exception from outside, or a lack of memory, may strike the thread in the middle of the code of asyncio, and
    a callback is lost. The loop goes on, and begins again what it may have lost.
    """

    __slots__ = (
        "_at_end",
        "_cleans_up",
        "_ended",
        "_ending",
        "_has_begun",
        "_repeat",
        "_running",
        "_started",
        "loop",
        "thread",
    )

    def __init__(
        self,
        name: str,
        repeat: weakref.WeakMethod[Callable[[], object]] | None = None,
        at_end: weakref.WeakMethod[Callable[[], object]] | None = None,
    ) -> None:
        """Start the thread, and return when the loop runs.

        The method `repeat` is called on the loop after an exception that may have lost a callback. The thread
        calls `at_end` when the loop has ended, which such an exception may have caused.

        Raises StartError if the loop or the thread cannot start.
        """
        self._ending = False
        self._ended = False
        self._cleans_up = False
        self._repeat = repeat
        self._at_end = at_end
        self._started = threading.Event()
        self._running: dict[concurrent.futures.Future[Any], _Running] = {}
        self._has_begun = False
        need_frames()  # inside of `new_event_loop` a RecursionError would leave descriptors
        try:
            # Here, not in the thread: asyncio logs, and a log handler that waits for the batcher is refused here.
            self.loop = asyncio.new_event_loop()
            self.loop.set_exception_handler(self._go_on)
            self.loop.call_soon(self._started.set)
            self.thread = DaemonThread(self._run, name, at_end=self._end_loop)
            self._started.wait()
        except BaseException as error:
            self._ending = True
            if not hasattr(self, "loop"):
                if isinstance(error, OSError):
                    raise StartError(error) from error
            elif isinstance(error, Exception) and not self._has_begun:
                self.loop.close()  # the thread has not started, for instance after a RecursionError
            else:
                self.stop_soon()
            raise

    @property
    def is_running(self) -> bool:
        """False if the loop has ended, or is about to."""
        return not (self._ending or self._ended or self.thread.is_dead or self.loop.is_closed())

    def run(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Schedule a coroutine on the loop, in a new context, and return the future of its result.

        If the coroutine has not ended when the loop ends, the future raises CancelledError.
        """
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._running[future] = _Running(coroutine)
        if not call_soon_threadsafe(self.loop, self._begin, future) or self._ended:
            self._give_up()
        return future

    def _begin(self, future: concurrent.futures.Future[Any]) -> None:
        """Create the task of a coroutine; may be called again."""
        running = self._running.get(future)
        if running is not None:
            if running.task is None:
                running.task = self.loop.create_task(running.coroutine, context=Context())
            running.task.add_done_callback(partial(self._end, future))

    def _end(self, future: concurrent.futures.Future[Any], task: asyncio.Task[Any]) -> None:
        """Set the outcome of a future from that of its task; may be called again."""
        if future in self._running:
            with suppress(concurrent.futures.InvalidStateError):  # it has its outcome
                if task.cancelled():
                    future.set_exception(asyncio.CancelledError())
                elif (error := task.exception()) is not None:
                    future.set_exception(error)
                else:
                    future.set_result(task.result())
            self._running.pop(future, None)  # last, so that it can be repeated

    def _go_on(self, loop: Loop | None = None, context: dict[str, Any] | None = None) -> None:
        """Repeat what an exception may have interrupted; the loop calls this for one that nobody has handled.

        The garbage collector may cause that call in any thread, also when the loop is closed.
        """
        for future in list(self._running):
            call_soon_threadsafe(self.loop, self._begin, future)
        repeat = None if self._repeat is None else self._repeat()
        if repeat is not None:
            call_soon_threadsafe(self.loop, repeat)
        if loop is not None and context is not None:
            loop.default_exception_handler(context)

    def _give_up(self) -> None:
        """Fail what has not ended on the loop, which is closed, and close what has not even begun."""
        for future, running in list(self._running.items()):
            with suppress(concurrent.futures.InvalidStateError):  # it has its outcome
                future.set_exception(asyncio.CancelledError())
            self._running.pop(future, None)
            if inspect.getcoroutinestate(running.coroutine) == inspect.CORO_CREATED:
                running.coroutine.close()

    def stop_soon(self) -> None:
        """Stop the loop, which ends its thread.

        Safe in a finalizer, because it takes no lock of this library.
        """
        self._ending = True
        call_soon_threadsafe(self.loop, self._stop)

    def _stop(self) -> None:
        if not self._cleans_up:  # otherwise it was called twice
            self.loop.stop()

    def _run(self, _: DaemonThread) -> None:
        self._has_begun = True
        self._run_until_stopped()

    def _run_until_stopped(self) -> None:
        """Run the loop until `stop_soon`; may be called again, to go on.

        A batch function, or a task that it has left running, may stop the loop, or raise SystemExit or
        KeyboardInterrupt, and any thread may raise an exception in this one. The loop must continue, because other
        batches run on it.
        """
        struck = False
        while not self._ending and not self.loop.is_closed():
            try:
                if struck:
                    self._reset()
                    self._go_on()
                    struck = False
                asyncio.set_event_loop(self.loop)
                self.loop.run_forever()
            except BaseException:
                struck = True  # first, because another exception may come at once
                with suppress(BaseException):
                    logger.exception("A task has raised what would end a program; the loop of the batcher goes on")

    def _reset(self) -> None:
        """Let asyncio know that the loop does not run: an interrupted `run_forever` may not have done so."""
        if self.loop.is_running():
            asyncio._set_running_loop(None)  # noqa: SLF001 - documented for those that run loops
            self.loop._thread_id = None  # type: ignore[attr-defined]  # noqa: SLF001 - the same from Python 3.7 to 3.14

    def _end_loop(self, _: DaemonThread) -> None:
        """Run the loop, if an exception from outside has ended that; then close it and tell the driver.

        May be called again, after another such exception.
        """
        self._run_until_stopped()
        loop = self.loop
        with suppress(Exception):  # CPython cannot repeat a `close` that an exception from outside has interrupted
            if not loop.is_closed():
                self._reset()
                self._cleans_up = True
                tasks = asyncio.all_tasks(loop)
                for task in tasks:
                    task.cancel()
                if tasks:
                    loop.run_until_complete(asyncio.wait(tasks, timeout=CLEANUP_SECONDS))
                loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.set_exception_handler(None)  # it refers to this object
            loop.close()
        self._ended = True
        self._give_up()
        self._started.set()  # if the loop never ran
        at_end = None if self._at_end is None else self._at_end()
        if at_end is not None:
            at_end()
