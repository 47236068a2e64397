"""How `process_batch` is called, and the threads of a batcher's own in which that happens."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from itertools import count
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

from .decisions import Batch
from .errors import BatcherError, BatchFunctionError, ReentrantCallError

R = TypeVar("R")

logger = logging.getLogger("batchers")

PAUSE = 0.01
"""Seconds after which something is tried again for which there was no memory."""

GRACE = 1.0
"""Seconds that cancelled coroutines have to clean up."""


# Calling


class Serving:
    """A call of `process_batch`, as its own context knows it."""

    __slots__ = ("active", "mark")

    def __init__(self, mark: int) -> None:
        """Begin."""
        self.mark = mark
        self.active = True  # not a part of the context, which tasks left behind keep


_serving: ContextVar[Serving | None] = ContextVar("batchers_serving", default=None)
serving = _serving.get
"""Return what the current context serves, or None."""
_marks = count(1)


def new_mark() -> int:
    """Return a number that stands for one batcher, also in another process."""
    return next(_marks)


def enter(mark: int) -> Serving:
    """Note in the current context that it runs `process_batch` of this batcher, until `active` is unset."""
    serving = Serving(mark)
    _serving.set(serving)
    return serving


def refuse_reentrant(mark: int, call: str) -> None:
    """Raise ReentrantCallError when the current context runs `process_batch` of this batcher."""
    serving = _serving.get()
    if serving is not None and serving.active and serving.mark == mark:
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
    serving = enter(mark)
    try:
        return function(items)
    finally:
        serving.active = False


def invoke_here(mark: int, function: Callable[[list[Any]], Any], batch: Batch[Any]) -> Any:  # noqa: ANN401
    """Call it in this thread, and note in the batch which one that is."""
    batch.where = threading.get_ident()
    return invoke(mark, function, batch.items)


def interrupt(batch: Batch[Any] | None) -> None:
    """Log where a batch hangs that was given up, and cancel what runs it, if it is a task: no thread can be."""
    if batch is None:
        return
    where, stack = stack_of(batch)
    logger.error(
        "A batch of %d was given up after its batch_timeout, %s:\n%s", len(batch.tickets), where, "".join(stack)
    )
    if isinstance(batch.where, asyncio.Task):
        tell(batch.where.get_loop(), batch.where.cancel)


def stack_of(batch: Batch[Any]) -> tuple[str, list[str]]:
    """Return where a batch runs, and the lines of its stack: none when that is another process."""
    if isinstance(batch.where, asyncio.Task):
        lines: list[str] = []
        awaited: Any = batch.where.get_coro()
        while awaited is not None:  # what it awaits, and what that awaits: a task knows only its own frame
            frame = getattr(awaited, "cr_frame", None)
            lines += traceback.format_stack(frame, limit=1) if frame is not None else []
            awaited = getattr(awaited, "cr_await", None)
        return f"in task {batch.where.get_name()!r}", lines
    for thread in threading.enumerate():
        if thread.ident is not None and thread.ident == batch.where:
            frame = _frame_of(thread.ident)
            return f"in thread {thread.name!r}", traceback.format_stack(frame) if frame is not None else []
    return "in an executor", []


_looking = threading.Lock()


def _look_anew() -> None:
    """In the child of a fork: whoever looked is a thread of the parent."""
    global _looking  # noqa: PLW0603 - a lock cannot be made free by another thread
    _looking = threading.Lock()


os.register_at_fork(after_in_child=_look_anew)


def _frame_of(ident: int) -> FrameType | None:
    """Return where a thread is.

    While CPython 3.11 makes its frames it holds a lock of the interpreter. If a collection begins then, threads
    may switch in a callback of it, and a second thread that wants the lock keeps the GIL for ever (python/cpython
    gh-106883). So one looks at a time, and nothing is collected meanwhile.
    """
    with _looking:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(ident)  # noqa: SLF001 - documented, for debuggers
        finally:
            if collects:
                gc.enable()


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


running_loop = asyncio._get_running_loop  # noqa: SLF001 - in `asyncio.__all__`; the other one raises an error for None
"""Return the event loop that runs in this thread, or None."""


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> bool:
    """Let a loop of any thread call something soon, in a context of nobody's; return False if it is closed.

    Where there is no memory for that, it sleeps and tries again until there is: somebody may wait there, and for
    ever. That memory is all it waits for, so it may do so with a lock held.
    """
    while True:
        try:
            loop.call_soon_threadsafe(callback, *args, context=Context())
        except MemoryError:
            time.sleep(PAUSE)
        except RuntimeError:
            if not loop.is_closed():
                raise
            return False
        else:
            return True


# Threads


_own = threading.local()


def in_own_thread() -> bool:
    """Return whether this thread is one of some batcher's own."""
    return getattr(_own, "thread", False)


class OwnThread:
    """A daemon thread of a batcher's own. Its end can be awaited, by `ended`, without another thread."""

    __slots__ = ("_thread", "ended")

    def __init__(self, function: Callable[[OwnThread], object], name: str) -> None:
        """Start it. RuntimeError when it cannot start."""
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(function,), name=name, daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[OwnThread], object]) -> None:
        _own.thread = True
        try:
            function(self)
        finally:
            del function
            self.ended.set_result(None)

    @property
    def is_current(self) -> bool:
        """Whether it is the one that runs this."""
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """If it has ended, wait for the moment that the interpreter needs to forget it."""
        if self.ended.done():
            self._thread.join()


class LoopThread:
    """An event loop in a thread of its own, for code that has none."""

    __slots__ = ("_ending", "_running", "loop", "thread")

    def __init__(self, name: str) -> None:
        """Start the thread; return when the loop runs. RuntimeError or OSError when it cannot start."""
        self._ending = False
        self._running: set[concurrent.futures.Future[Any]] = set()
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.loop.call_soon(started.set)
        try:
            self.thread = OwnThread(self._run, name)
        except RuntimeError:
            self.loop.close()
            raise
        started.wait()

    def run(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Run a coroutine in a context of its own. Its future is cancelled if it does not end with the loop."""
        running = Context().run(asyncio.run_coroutine_threadsafe, coroutine, self.loop)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return running

    def stop_soon(self) -> None:
        """Let the loop end and its thread with it. Safe in a finalizer: it takes no lock of ours."""
        self._ending = True
        tell(self.loop, self.loop.stop)

    def _run(self, _: OwnThread) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            self._run_until_told()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            for running in list(self._running):
                running.cancel()
            asyncio.set_event_loop(None)
            loop.close()

    def _run_until_told(self) -> None:
        # A batch function, or a task that it has left behind, may stop the loop or raise what would end a
        # program; other batches live on this loop.
        while not self._ending:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                logger.exception("A task has raised what would end a program; the loop of the batcher goes on")


class Workers:
    """Threads for sync batch functions: started one by one, when none is free."""

    __slots__ = ("_free", "_lock", "_most", "_name", "_queue", "busy", "threads")

    def __init__(self, most: int, name: str) -> None:
        """Start none yet; `most` of them at most."""
        self._most = most
        self._name = name
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self.threads: set[OwnThread] = set()
        self.busy: set[OwnThread] = set()

    def prepare(self) -> None:
        """Start the first thread. RuntimeError when it cannot start."""
        with self._lock:
            if not self.threads:
                self.threads.add(OwnThread(self._serve, f"{self._name}-1"))
                self._free += 1

    def run(self, work: Callable[[], object]) -> None:
        """Let a thread do some work, which must not raise. BatcherError when there is none and none can start."""
        with self._lock:
            if self._free <= 0 and len(self.threads) < self._most:
                try:
                    self.threads.add(OwnThread(self._serve, f"{self._name}-{len(self.threads) + 1}"))
                    self._free += 1
                except RuntimeError as error:
                    if not self.threads:  # else one of them does it later
                        msg = f"no thread can run the batch: {error}"
                        raise BatcherError(msg) from error
            self._queue.put(work)
            self._free -= 1

    def stop_soon(self) -> None:
        """Let each thread end when it is free. Safe in a finalizer: it takes no lock."""
        for _ in range(len(self.threads)):
            self._queue.put(None)

    def _serve(self, me: OwnThread) -> None:
        while (work := self._queue.get()) is not None:
            self.busy.add(me)
            work()
            del work
            self.busy.discard(me)
            with self._lock:
                self._free += 1
