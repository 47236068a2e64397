"""Other worlds of concurrency: what they leave of a batcher, in one sentence each."""

from __future__ import annotations

import asyncio
import sys

from batchers.errors import BatcherError

from .loops import Loop


def refuse_green_threads(*, needs_loop: bool) -> None:
    """Raise BatcherError if gevent or eventlet has replaced threads, and the batcher needs an event loop.

    Their green threads share one thread of the system, so an event loop in one of them stops all others.
    """
    if not needs_loop:
        return
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    for name, found in (
        ("gevent", gevent is not None and gevent.is_module_patched("threading")),
        ("eventlet", eventlet is not None and eventlet.is_monkey_patched("thread")),
    ):
        if found:
            msg = (
                f"{name} has replaced threads, so an event loop would stop them all: use a ThreadingBatcher with "
                "a sync function"
            )
            raise BatcherError(msg)


def no_asyncio_loop() -> BatcherError:
    """Return the error of a coroutine that no event loop of asyncio runs, as under trio and in a thread."""
    return BatcherError(
        "process() and process_many() need a running event loop of asyncio, and none runs: use call(item) for "
        "each item in a thread, and under trio `await trio.to_thread.run_sync(batcher.call, item)`"
    )


def running_asyncio_loop() -> Loop:
    """Return the event loop of asyncio that runs in this thread, or raise `no_asyncio_loop`."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise no_asyncio_loop() from error
