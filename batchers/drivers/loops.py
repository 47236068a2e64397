"""Event loops: how another thread calls one, and one in a thread of the batcher's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeAlias, TypeVar

from .threads import DaemonThread

R = TypeVar("R")

Loop: TypeAlias = asyncio.AbstractEventLoop

logger = logging.getLogger("batchers")

RETRY_SECONDS = 0.01
"""Seconds after which something is tried again for which there was no memory."""

LONGEST_WAIT = 86_400.0
"""Seconds after which a wait without end looks again; neither Conditions nor all loops take an endless number."""

CLEANUP_SECONDS = 1.0
"""Seconds that cancelled coroutines have to clean up."""


running_loop = asyncio._get_running_loop  # noqa: SLF001 - in `asyncio.__all__`; the other one raises an error for None
"""Return the event loop that runs in this thread, or None."""


def call_soon_threadsafe(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> bool:
    """Let a loop of any thread call something soon, in a context of nobody's; return False if it is closed.

    Where there is no memory for that, it sleeps and tries again until there is: somebody may wait there, and for
    ever. That memory is all it waits for, so it may do so with a lock held.
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
            self.thread = DaemonThread(self._run, name)
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
        call_soon_threadsafe(self.loop, self.loop.stop)

    def _run(self, _: DaemonThread) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            self._run_until_stopped()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=CLEANUP_SECONDS))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            for running in list(self._running):
                running.cancel()
            asyncio.set_event_loop(None)
            loop.close()

    def _run_until_stopped(self) -> None:
        # A batch function, or a task that it has left behind, may stop the loop or raise what would end a
        # program; other batches live on this loop.
        while not self._ending:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                logger.exception("A task has raised what would end a program; the loop of the batcher goes on")
