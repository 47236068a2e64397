"""Waiting until a driver has ended: `stop` for coroutines, `close` for threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from math import inf
from typing import Any

from batchers.errors import BatcherError, OptionError

from .driver import Driver
from .invocation import refuse_reentrant
from .loops import CLEANUP_SECONDS, running_loop


async def stop(driver: Driver[Any, Any], *, force: bool, timeout: float | None) -> None:
    """Stop as `Batcher.stop` says."""
    end = _end_of(driver, timeout)
    loop = asyncio.get_running_loop()
    driver.close(loop, force=force)
    await asyncio.wait((asyncio.wrap_future(driver.stopped),), timeout=_seconds_to(driver, end))
    abandoned = driver.abandon(loop, timeout) or driver.core.stalled > 0
    own_threads = [thread for thread in driver.own_threads(busy=not abandoned) if not thread.is_current]
    leftovers = {asyncio.wrap_future(thread.ended) for thread in own_threads} | driver.leftovers(loop)
    if leftovers:
        await asyncio.wait(leftovers, timeout=_seconds_to_clean_up(driver, end, abandoned=abandoned))
    for thread in own_threads:
        thread.join()


def close(driver: Driver[Any, Any], *, force: bool, timeout: float | None) -> None:
    """Stop as `Batcher.close` says."""
    refuse_reentrant(driver.batcher_id, "close")
    end = _end_of(driver, timeout)
    loop = running_loop()
    if loop is not None and not driver.stopped.done() and (loop is driver.home or driver.leftovers(loop)):
        msg = "close() would block the event loop that runs the batches: await stop() instead"
        raise BatcherError(msg)
    if any(thread.is_current for thread in driver.own_threads(busy=True)):
        msg = "close() would wait for the thread that calls it, which is the batcher's own: use another one"
        raise BatcherError(msg)
    driver.close(loop, force=force)
    concurrent.futures.wait((driver.stopped,), _seconds_to(driver, end))
    abandoned = driver.abandon(loop, timeout) or driver.core.stalled > 0
    own_threads = driver.own_threads(busy=not abandoned)
    if own_threads:
        ends = [thread.ended for thread in own_threads]
        concurrent.futures.wait(ends, _seconds_to_clean_up(driver, end, abandoned=abandoned))
    for thread in own_threads:
        thread.join()


def _end_of(driver: Driver[Any, Any], timeout: float | None) -> float:
    """Return the time at which a timeout is over; inf: never."""
    if timeout is None:
        return inf
    if not timeout >= 0:
        msg = f"timeout must be a number of seconds, 0 or more, or None, not {timeout!r}"
        raise OptionError(msg)
    return driver.clock() + timeout if timeout < threading.TIMEOUT_MAX else inf


def _seconds_to(driver: Driver[Any, Any], end: float) -> float | None:
    return None if end == inf else max(end - driver.clock(), 0.0)


def _seconds_to_clean_up(driver: Driver[Any, Any], end: float, *, abandoned: bool) -> float | None:
    """Return what is left of the timeout, or time to clean up if that is longer; None: no limit."""
    if end == inf:
        return CLEANUP_SECONDS if abandoned else None
    return max(end - driver.clock(), CLEANUP_SECONDS)
