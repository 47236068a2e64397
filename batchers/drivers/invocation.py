"""How `process_batch` is called: in which context, by which executor, and where it is while it runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import Context, ContextVar
from itertools import count
from types import FrameType
from typing import Any, TypeVar

from batchers.core.decisions import Batch
from batchers.errors import BatchFunctionError, ReentrantCallError

from .loops import call_soon_threadsafe

R = TypeVar("R")

logger = logging.getLogger("batchers")


class BatchScope:
    """One call of `process_batch`, as a context variable of its context."""

    __slots__ = ("active", "batcher_id")

    def __init__(self, batcher_id: int) -> None:
        """Note the batcher whose function runs."""
        self.batcher_id = batcher_id
        self.active = True  # tasks that outlive the batch keep its context, so its end is noted here


_scope: ContextVar[BatchScope | None] = ContextVar("batchers_scope", default=None)
current_scope = _scope.get
"""Return the scope of the current context; None outside of `process_batch`."""
_ids = count(1)


def new_batcher_id() -> int:
    """Return a number that stands for one batcher, also in another process."""
    return next(_ids)


def enter_scope(batcher_id: int) -> BatchScope:
    """Note in the current context that it runs `process_batch` of this batcher, until `active` is unset."""
    scope = BatchScope(batcher_id)
    _scope.set(scope)
    return scope


def refuse_reentrant(batcher_id: int, call: str) -> None:
    """Raise ReentrantCallError when the current context runs `process_batch` of this batcher."""
    scope = _scope.get()
    if scope is not None and scope.active and scope.batcher_id == batcher_id:
        msg = (
            f"process_batch called {call} of its own batcher, which waits for process_batch: "
            "call the model itself there, or use a second batcher"
        )
        raise ReentrantCallError(msg)


def invoke(batcher_id: int, function: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401 - the user's
    """Call a sync `process_batch` in an empty context: no caller's context variables leak into it.

    It is a plain function of this module so that it can be sent to another process.
    """
    return Context().run(_run_in_scope, batcher_id, function, items)


def _run_in_scope(batcher_id: int, function: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401 - the user's
    scope = enter_scope(batcher_id)
    try:
        return function(items)
    finally:
        scope.active = False


def invoke_here(batcher_id: int, function: Callable[[list[Any]], Any], batch: Batch[Any]) -> Any:  # noqa: ANN401
    """Call it in this thread, and note in the batch which one that is."""
    batch.where = threading.get_ident()
    return invoke(batcher_id, function, batch.items)


def interrupt_batch(batch: Batch[Any] | None) -> None:
    """Log where a batch hangs that was given up, and cancel what runs it, if it is a task: no thread can be."""
    if batch is None:
        return
    where, stack = stack_of(batch)
    logger.error(
        "A batch of %d was given up after its batch_timeout, %s:\n%s", len(batch.requests), where, "".join(stack)
    )
    if isinstance(batch.where, asyncio.Task):
        call_soon_threadsafe(batch.where.get_loop(), batch.where.cancel)


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


_frames_lock = threading.Lock()


def _renew_frames_lock() -> None:
    """In the child of a fork: whoever looked is a thread of the parent."""
    global _frames_lock  # noqa: PLW0603 - a lock cannot be made free by another thread
    _frames_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_frames_lock)


def _frame_of(ident: int) -> FrameType | None:
    """Return where a thread is.

    While CPython 3.11 makes its frames it holds a lock of the interpreter. If a collection begins then, threads
    may switch in a callback of it, and a second thread that wants the lock keeps the GIL for ever (python/cpython
    gh-106883). So one looks at a time, and nothing is collected meanwhile.
    """
    with _frames_lock:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(ident)  # noqa: SLF001 - documented, for debuggers
        finally:
            if collects:
                gc.enable()


def send(
    executor: concurrent.futures.Executor, batcher_id: int, function: Callable[[list[Any]], Any], items: list[Any]
) -> concurrent.futures.Future[Any]:
    """Let an executor `invoke` the function."""
    try:
        return executor.submit(invoke, batcher_id, function, items)
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
