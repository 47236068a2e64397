"""How `process_batch` is called, and what it must not do while it runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from itertools import count
from typing import Any, TypeVar

from .errors import BatchFunctionError, ReentrantCallError

R = TypeVar("R")

logger = logging.getLogger("batchers")

_serving: ContextVar[int | None] = ContextVar("batchers_serving", default=None)
_marks = count(1)

GRACE = 1.0
"""Seconds that cancelled coroutines have to clean up."""


def new_mark() -> int:
    """Return a number that stands for one batcher, also in another process."""
    return next(_marks)


def enter(mark: int) -> None:
    """Note in the current context that it runs `process_batch` of this batcher."""
    _serving.set(mark)


def refuse_reentrant(mark: int, call: str) -> None:
    """Raise ReentrantCallError when the current context runs `process_batch` of this batcher."""
    if _serving.get() == mark:
        msg = (
            f"process_batch called {call} of its own batcher, which waits for process_batch: "
            "call the model itself there, or use a second batcher"
        )
        raise ReentrantCallError(msg)


def invoke(mark: int, function: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401 - the user's
    """Call a sync `process_batch` in an empty context: no caller's context variables leak into it.

    It is a plain function of this module so that it can be sent to another process.
    """
    return Context().run(_marked, mark, function, items)


def _marked(mark: int, function: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401 - the user's
    enter(mark)
    try:
        return function(items)
    except (StopIteration, concurrent.futures.CancelledError) as error:
        # No asyncio future can carry the one, and callers would take the other for their own.
        msg = f"process_batch raised {type(error).__name__}, which is not passed on to callers as it is"
        raise BatchFunctionError(msg) from error


def send(
    executor: concurrent.futures.Executor, mark: int, function: Callable[[list[Any]], Any], items: list[Any]
) -> concurrent.futures.Future[Any]:
    """Let an executor `invoke` the function."""
    try:
        return executor.submit(invoke, mark, function, items)
    except RuntimeError as error:
        msg = f"the executor takes no more work ({error}): stop the batcher before its executor"
        raise BatchFunctionError(msg) from error


def result_of(future: concurrent.futures.Future[R]) -> R:
    """Return what an executor or another loop has made of a batch."""
    try:
        return future.result()
    except concurrent.futures.CancelledError as error:
        raise asyncio.CancelledError from error  # the batch was cancelled; its callers were not


def without_this_frame(error: BaseException) -> BaseException:
    """Drop the frame of the caller, which keeps the error, from the error's traceback."""
    trace = error.__traceback__
    return error.with_traceback(trace and trace.tb_next)


def is_async(function: object) -> bool:
    """Whether calling `function` gives a coroutine, as far as can be told before."""
    call = getattr(function, "__call__", None)  # noqa: B004 - the method itself is what is looked at
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class LoopThread:
    """An event loop in a daemon thread of its own, for code that has none."""

    def __init__(self, name: str) -> None:
        """Start the thread; return when the loop runs."""
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.loop.call_soon(started.set)
        self.thread = threading.Thread(target=_run_loop, args=(self.loop,), name=name, daemon=True)
        self.thread.start()
        started.wait()

    def stop_soon(self) -> None:
        """Let the loop end and its thread with it. Safe in a finalizer: it takes no lock of ours."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self.thread.join()


class ThreadedCall:
    """A function that runs in a short-lived daemon thread."""

    def __init__(self, function: Callable[[], object]) -> None:
        """Start it."""
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        finally:
            self.done.set_result(None)

    def join(self) -> None:
        """If the function has returned, wait for the moment that its thread needs to end."""
        if self.done.done():
            self._thread.join()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        _run_until_stopped(loop)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # Out of a task that a batch function has left behind; other batches live on this loop.
            logger.exception("A task has raised what would end a program; the loop of the batcher goes on")
        else:
            return
