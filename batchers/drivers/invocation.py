"""Calls of `process_batch`: their context, their executor, and the thread or task in which they run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import logging
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import Context, ContextVar
from itertools import count
from types import FrameType
from typing import Any, TypeAlias, TypeVar

from batchers.core.decisions import Batch
from batchers.core.exceptions import release_frames, text_of
from batchers.core.outcomes import Failed
from batchers.errors import BatchFunctionError, OptionError, ReentrantCallError

from .loops import call_soon_threadsafe

R = TypeVar("R")

logger = logging.getLogger("batchers")


_OWN_MODULES = ("batchers.", "concurrent.futures.")


class BatchScope:
    """One call of `process_batch`, stored in a context variable of the context in which the call runs."""

    __slots__ = ("active", "batcher_id")

    def __init__(self, batcher_id: BatcherId) -> None:
        """Store the identifier of the batcher whose function runs."""
        self.batcher_id = batcher_id
        self.active = True  # False after the end of the batch: tasks that outlive the batch keep its context


_scope: ContextVar[BatchScope | None] = ContextVar("batchers_scope", default=None)
current_scope = _scope.get
"""Return the scope of the current context, or None outside of `process_batch`."""
_ids = count(1)

BatcherId: TypeAlias = tuple[int, int]
"""The process in which a batcher was made, and its number there."""


def new_batcher_id() -> BatcherId:
    """Return an identifier that no other batcher has, in this process or in those that it sends batches to."""
    return os.getpid(), next(_ids)


def enter_scope(batcher_id: BatcherId) -> BatchScope:
    """Mark the current context as running `process_batch` of this batcher, and return the scope.

    The mark is valid until the attribute `active` of the scope is set to False.
    """
    scope = BatchScope(batcher_id)
    _scope.set(scope)
    return scope


def refuse_reentrant(batcher_id: BatcherId, call: str) -> None:
    """Raise ReentrantCallError if the current context runs `process_batch` of this batcher."""
    scope = _scope.get()
    if scope is not None and scope.active and scope.batcher_id == batcher_id:
        msg = (
            f"process_batch called {call} of its own batcher, which waits for process_batch: "
            "call the model itself there, or use a second batcher"
        )
        raise ReentrantCallError(msg)


def invoke(batcher_id: BatcherId, function: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401 - the user's
    """Call a sync `process_batch` in an executor, and in an empty context, as `invoke_here` does.

    This is a plain function of the module, so that it can be pickled for another process. There, exceptions that
    do not survive pickling are replaced: one of them would break the pool.
    """
    if os.getpid() == batcher_id[0]:
        return Context().run(_run_in_scope, batcher_id, function, items)
    try:
        results = Context().run(_run_in_scope, batcher_id, function, items)
    except BaseException as error:
        if _survives_pickling(error):
            raise
        raise _in_words(error) from None
    if type(results) is list:
        results = [
            _in_words(result) if isinstance(result, BaseException) and not _survives_pickling(result) else result
            for result in results
        ]
    return results


def _survives_pickling(error: BaseException) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)  # noqa: S301 - it was dumped here
    except Exception:  # noqa: BLE001 - of the user's class
        return False


def _in_words(error: BaseException) -> BatchFunctionError:
    """Return an error that says what an exception was that cannot be sent to another process."""
    lines = traceback.format_exception(error)
    return BatchFunctionError(
        f"process_batch raised {type(error).__name__}, which cannot be pickled for another process: "
        f"{text_of(error)}\n{''.join(lines)}"
    )


def _run_in_scope(batcher_id: BatcherId, function: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401 - the user's
    scope = enter_scope(batcher_id)
    try:
        return function(items)
    finally:
        scope.active = False


def invoke_here(batcher_id: BatcherId, function: Callable[[list[Any]], Any], batch: Batch[Any]) -> Any:  # noqa: ANN401
    """Call a sync `process_batch` in this thread, and store the identifier of the thread in the batch.

    The context is empty, so that the function sees no context variables of any caller.
    """
    batch.where = threading.get_ident()
    return Context().run(_run_in_scope, batcher_id, function, batch.items)


def cancel_task(batch: Batch[Any]) -> None:
    """Cancel an interrupted batch if a task runs it, from any thread; the task itself calls this if it is late."""
    if isinstance(batch.where, asyncio.Task):
        batch.cancelled = True
        call_soon_threadsafe(batch.where.get_loop(), batch.where.cancel)


def stack_of(batch: Batch[Any]) -> tuple[str, list[str]]:
    """Return the location of a batch, and the lines of its stack.

    There are no lines if an executor runs the batch, for example in another process.
    """
    if isinstance(batch.where, asyncio.Task):
        lines: list[str] = []
        awaited: Any = batch.where.get_coro()
        while awaited is not None:  # follow the chain of awaited objects: a task knows only its outermost frame
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
    """Replace the lock in the child of a fork, because a thread of the parent may have held it."""
    global _frames_lock  # noqa: PLW0603 - the holder, a thread of the parent, cannot release the lock
    _frames_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_renew_frames_lock)


def _frame_of(ident: int) -> FrameType | None:
    """Return the current frame of a thread, or None if the thread has ended.

    CPython 3.11 holds a lock of the interpreter while it creates the frame objects. If a garbage collection starts
    at that time, threads may switch in a callback of the collection. A second thread that waits for the lock then
    keeps the GIL for ever (python/cpython gh-106883). Therefore only one thread at a time reads the frames, and
    garbage collection is disabled meanwhile.
    """
    with _frames_lock:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(ident)  # noqa: SLF001 - documented, for use by debuggers
        finally:
            if collects:
                gc.enable()


def result_of(future: concurrent.futures.Future[R]) -> R:
    """Return the result of a batch from an executor or another loop, or raise its exception.

    The CancelledError of concurrent.futures is raised as the CancelledError of asyncio.
    """
    try:
        return future.result()
    except concurrent.futures.CancelledError as error:
        raise asyncio.CancelledError from error  # the batch was cancelled; its callers were not


def ended_by(error: BaseException | None) -> BatchFunctionError:
    """Return the error for the callers of a batch whose thread an exception from outside has ended."""
    cause = "something that no exception tells of" if error is None else repr(error)
    return caused_by(error, f"the worker thread that ran the batch was ended from outside by {cause}")


class BatchCancelledError(BatchFunctionError):
    """The task that ran the batch was cancelled, by `asyncio.run` or by a program; it is no failure to log."""


def prepare(failed: Failed, batch: Batch[Any]) -> None:
    """Prepare the error of a batch for its callers, and see whether the batch has ended by its cancellation."""
    failed.prepare(len(batch.requests))
    if batch.cancelled and not isinstance(failed.cause, asyncio.CancelledError | BatchCancelledError):
        batch.cancelled = False  # an error on the way out is an error


def caused_by(error: BaseException | None, message: str) -> BatchFunctionError:
    """Return a BatchFunctionError with this message and cause."""
    own = BatchFunctionError(message)
    own.__cause__ = error
    return own


def without_own_frames(error: BaseException) -> BaseException:
    """Return the error of a batch function with a traceback that begins in that function.

    The frames of this library, and of the executor, would keep objects of theirs alive.
    """
    release_frames(error)  # first: the frames of the function refer to those that are left out
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_OWN_MODULES):
        trace = trace.tb_next
    return error.with_traceback(trace)


def check_batch_function(function: object, method: object, executor: object, *, overridden: bool) -> bool:
    """Return True if the batch function is async: `function`, or the method, if it is overridden.

    Raises OptionError if there is none, or both, or if an async one would get an executor.
    """
    if (function is not None) == overridden:
        msg = "No batch function: pass one to the constructor or override process_batch (not both)"
        raise OptionError(msg)
    if not (overridden or callable(function)):
        msg = f"process_batch must be a function of a list of items, not {function!r}"
        raise OptionError(msg)
    runs_on_a_loop = is_async(method if overridden else function)
    if runs_on_a_loop and executor is not None:
        msg = "an async process_batch runs on an event loop: give no executor, or a sync function"
        raise OptionError(msg)
    return runs_on_a_loop


def is_async(function: object) -> bool:
    """Return True if a call of `function` returns a coroutine, as far as this is known before the call."""
    call = getattr(function, "__call__", None)  # noqa: B004 - the method itself is inspected
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
