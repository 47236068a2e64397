"""Shutdown of a driver, including the wait for its end: `stop` for coroutines, `close` for threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from contextlib import suppress
from math import inf
from typing import Any

from batchers.checks import as_float
from batchers.errors import BatcherError, OptionError

from .interface import AnyDriver
from .invocation import refuse_reentrant
from .loops import CLEANUP_SECONDS, running_loop


async def stop(driver: AnyDriver[Any, Any], *, force: bool, timeout: float | None) -> None:
    """Stop the driver as documented for `Batcher.stop`.

    `timeout` is in seconds, 0 or more; None means no limit.

    Raises OptionError if `timeout` is negative or NaN, and ReentrantCallError inside `process_batch`.
    """
    end = _end_of(driver, timeout)
    loop = asyncio.get_running_loop()
    driver.close(loop, force=force)
    await asyncio.wait((asyncio.wrap_future(driver.stopped),), timeout=_seconds_to(driver, end))
    abandoned = driver.abandon(loop, timeout)
    own_threads = [thread for thread in driver.own_threads(busy=not abandoned) if not thread.is_current]
    leftovers = {asyncio.wrap_future(thread.ended) for thread in own_threads} | driver.leftovers(loop)
    if leftovers:
        await asyncio.wait(leftovers, timeout=_seconds_to_clean_up(driver, end, abandoned=abandoned))
    for thread in own_threads:
        thread.join()


def close(driver: AnyDriver[Any, Any], *, force: bool, timeout: float | None) -> None:
    """Stop the driver as documented for `Batcher.close`.

    `timeout` is in seconds, 0 or more; None means no limit.

    Raises OptionError if `timeout` is negative or NaN, and ReentrantCallError inside `process_batch`. Raises
    BatcherError on the event loop that runs the batches, and in a thread of this batcher. At the end of the
    interpreter, where no other thread runs, it does nothing.
    """
    if sys.is_finalizing():
        return  # from a `__del__` at the end of the interpreter: no other thread runs, and one may hold the lock
    refuse_reentrant(driver.batcher_id, "close")
    driver.refuse_wait("close()", "close the batcher in another thread, or after this call has returned")
    end = _end_of(driver, timeout)
    loop = running_loop()
    if loop is not None and not driver.stopped.done() and (loop is driver.home or driver.leftovers(loop)):
        msg = "close() would block the event loop that runs the batches: await stop() instead"
        raise BatcherError(msg)
    if any(thread.is_current for thread in driver.own_threads(busy=True)):
        msg = "close() would wait for the thread that calls it, which is the batcher's own: use another one"
        raise BatcherError(msg)
    driver.close(loop, force=force)
    _wait(driver.stopped, _seconds_to(driver, end))
    abandoned = driver.abandon(loop, timeout)
    own_threads = driver.own_threads(busy=not abandoned)
    if own_threads:
        seconds = _seconds_to_clean_up(driver, end, abandoned=abandoned)
        latest = None if seconds is None else driver.clock() + seconds
        for thread in own_threads:
            _wait(thread.ended, None if latest is None else max(latest - driver.clock(), 0.0))
    for thread in own_threads:
        thread.join()


def _wait(future: concurrent.futures.Future[None], seconds: float | None) -> None:
    """Wait for a future; `concurrent.futures.wait` misses one whose delivery was interrupted and repeated."""
    with suppress(TimeoutError):
        future.result(seconds)


def _end_of(driver: AnyDriver[Any, Any], timeout: float | None) -> float:
    """Return the time of the driver's clock at which a timeout ends, or inf if it never ends.

    The result is inf if `timeout` is None, or `threading.TIMEOUT_MAX` seconds or more. Raises OptionError if
    `timeout` is negative or NaN.
    """
    if timeout is None:
        return inf
    seconds = as_float(timeout)
    if seconds is None or not seconds >= 0:
        msg = f"timeout must be a number of seconds, 0 or more, or None, not {timeout!r}"
        raise OptionError(msg)
    return driver.clock() + seconds if seconds < threading.TIMEOUT_MAX else inf


def _seconds_to(driver: AnyDriver[Any, Any], end: float) -> float | None:
    return None if end == inf else max(end - driver.clock(), 0.0)


def _seconds_to_clean_up(driver: AnyDriver[Any, Any], end: float, *, abandoned: bool) -> float | None:
    """Return the remaining seconds of the timeout, but at least CLEANUP_SECONDS.

    If the timeout never ends, return CLEANUP_SECONDS if batches were abandoned, and None (no limit) otherwise.
    """
    if end == inf:
        return CLEANUP_SECONDS if abandoned else None
    return max(end - driver.clock(), CLEANUP_SECONDS)
