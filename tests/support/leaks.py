"""What a test must not leave behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .children import PATIENCE


@dataclass(frozen=True)
class Belongings:
    """Threads and descriptors of this process."""

    threads: frozenset[threading.Thread]
    descriptors: dict[str, str]

    @classmethod
    def now(cls) -> Self:
        descriptors = {}
        for path in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the one that lists the folder
                descriptors[path.name] = str(path.readlink())
        return cls(frozenset(threading.enumerate()), descriptors)


def check_nothing_left(before: Belongings) -> None:
    """Fail when there are more threads or descriptors than before."""
    end = time.monotonic() + PATIENCE
    after = Belongings.now()
    while after.threads - before.threads and time.monotonic() < end:
        _join(after.threads - before.threads, end)
        after = Belongings.now()
    if len(after.descriptors) > len(before.descriptors):
        gc.collect()  # sockets of a loop that a failed test has dropped
        after = Belongings.now()
    left = [thread.name for thread in after.threads - before.threads]
    assert not left, f"threads left behind: {left}"
    more = sorted(after.descriptors.items() - before.descriptors.items())
    assert len(after.descriptors) <= len(before.descriptors), f"descriptors left behind: {more}"


def _join(threads: frozenset[threading.Thread], end: float) -> None:
    """Wait for these threads.

    A function of its own: a name that went on meaning the thread of a process pool would keep its processes, whose
    pipes the caller counts next.
    """
    for thread in threads:  # the collector may start one meanwhile, which ends a batcher of an earlier test
        with suppress(RuntimeError):  # listed by its starter, but not started yet
            thread.join(max(end - time.monotonic(), 0))


def check_quiet(before: set[asyncio.Task[Any]]) -> None:
    """Fail when the running loop has other tasks than before, or timers."""
    loop = asyncio.get_running_loop()
    tasks = {task for task in asyncio.all_tasks() - before if not _is_runner(task)}
    assert not tasks, f"tasks left behind: {tasks}"
    timers = [handle for handle in getattr(loop, "_scheduled", ()) if not handle.cancelled()]
    assert not timers, f"timers left behind: {timers}"


def _is_runner(task: asyncio.Task[Any]) -> bool:
    """Whether it is the plugin's own task, in which tests and fixtures run."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")
