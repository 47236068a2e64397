"""The calls at random, in programs that are harder on a batcher: `python -m benchmarks.faults.field FAULT`.

Log handlers call the batcher while it logs. Finalizers of items log, and call it too. Worker threads are ended
from outside. Callers are so near the limit of recursion that their call fails in the middle. The pools of
executors break (this project's lives only: with peers nobody replaces one).

A finalizer does not log through the handler that calls the batcher. That would be a deadlock of the program: one
thread holds the lock of the handler and calls the batcher, another one is inside of the batcher when the collector
runs the finalizer, which waits for the lock of the handler (decision 49).
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from functools import partial
from typing import Any

from batchers import BatcherError

from .calls import DEEDS, NO_CAUSE, Item, Quiet, answers_to, run
from .lives import BatchFunction, Life, Limits, Ours, begin
from .result import OURS, Fault, Subject

of_the_library = logging.getLogger("batchers")
of_the_program = logging.getLogger(__name__)

NEAR = 30
"""Frames of the limit of recursion that a deep caller may have left."""


class LoggingItem(Item):
    """An item that logs when it is collected, and calls a batcher again."""

    __slots__ = ("call_again",)

    call_again: Callable[[], None]

    def __del__(self) -> None:
        """Say so."""
        of_the_program.info("an item is gone")
        self.call_again()


class Pool(ThreadPoolExecutor):
    """A pool that can break."""

    def break_now(self) -> None:
        """Break as if the initializer of a worker had failed."""
        self._initializer_failed()  # private, and the same from Python 3.7 to 3.14
        self._work_queue.put(None)  # type: ignore[arg-type]  # that has taken the sign of a shutdown out of the queue, too


class Caller(logging.Handler):
    """A log handler that asks the batcher, and submits an item, as one does that classifies records."""

    def __init__(self, trouble: Trouble) -> None:
        """Call the batcher of this life."""
        super().__init__()
        self._trouble = trouble

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - whatever it is
        """Call it."""
        self._trouble.call_again()


def _end_thread(thread: threading.Thread) -> None:
    """Raise SystemExit in a thread, at whatever line it runs; on the loop of the main thread.

    Not while a thread starts: until it runs, CPython knows it by the identifier of the one that starts it, and the
    exception would end the new thread before `Thread.start` knows of it, which then waits for ever.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10.0)  # so that no thread ends now, and a new one gets its identifier
    time.sleep(0)  # for those that have asked for a switch before
    starting: dict[object, object] = threading._limbo  # type: ignore[attr-defined]  # noqa: SLF001
    if starting:
        asyncio.get_running_loop().call_soon(_end_thread, thread)
    elif thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
    sys.setswitchinterval(interval)


class Trouble(Quiet):
    """A life in a program that is hard on its batcher."""

    deeds = (*DEEDS, ("dies", 4), ("breaks", 4))

    def __init__(self, chance: random.Random, found: Counter[str]) -> None:
        """Begin to listen to the log."""
        super().__init__(chance, found)
        self._life: Life | None = None
        self._loop = asyncio.get_running_loop()
        self._again: list[tuple[Item, Future[Any] | asyncio.Task[Any]]] = []
        self._pools: list[Pool] = []
        self._left = 200  # calls of handlers: each may log again
        self._handler = Caller(self)
        of_the_library.addHandler(self._handler)
        of_the_program.setLevel(logging.INFO)

    def begin(self, subject: Subject, function: BatchFunction, limits: Limits) -> Life:
        """Make the batcher, with a pool that breaks in half of the lives with a sync function."""
        options: dict[str, Any] = {}
        with_pool = self.chance.random() < 0.5
        if subject in OURS and with_pool and not inspect.iscoroutinefunction(function):
            options["executor"] = self._make_pool
        life = begin(subject, function, limits, **options)
        self._life = life
        return life

    def _make_pool(self) -> Pool:
        self._pools.append(Pool(2))
        return self._pools[-1]

    def item(self, chance: random.Random, deed: str) -> Item:
        """Make an item: one of thirty logs at its end, and the caller of one of two hundred is deep."""
        item: Item
        if chance.random() < 1 / 30:
            item = LoggingItem(chance.getrandbits(60), deed)
            item.call_again = self.call_again
        else:
            item = Item(chance.getrandbits(60), deed)
        item.deep = chance.random() < 1 / 200
        return item

    def answers_to(self, items: list[Item]) -> list[Any]:
        """Answer, and end this thread or break this pool if an item says so."""
        deeds = {item.deed for item in items}
        ends = deeds & {"dies", "breaks"}
        if ends:
            for item in items:
                item.blamed = True
        if "breaks" in deeds and self._pools:
            self._pools[-1].break_now()
        answers = answers_to(items, ends)
        if "dies" in deeds and threading.current_thread() is not threading.main_thread() and not self._pools:
            self._loop.call_soon_threadsafe(_end_thread, threading.current_thread())  # later, in the library
        return answers

    async def call(self, life: Life, item: Item, timeout: float | None) -> Any:  # noqa: ANN401 - of the caller's kind
        """Call, from a deep stack if the item says so."""
        if not item.deep:
            return await life.call(item, timeout)
        return await self._deep(self._frames(), partial(life.call, item, timeout))

    async def _deep(self, frames: int, call: Any) -> Any:  # noqa: ANN401 - as above
        return await (self._deep(frames - 1, call) if frames > 0 else call())

    def submit(self, life: Ours, item: Item, timeout: float | None) -> Future[Any]:
        """Call, from a deep stack if the item says so."""

        def deep(frames: int) -> Future[Any]:
            return deep(frames - 1) if frames > 0 else life.batcher.submit(item, timeout=timeout)

        return deep(self._frames() if item.deep else 0)

    def _frames(self) -> int:
        here = len(inspect.stack(0))
        return sys.getrecursionlimit() - here - self.chance.randrange(NEAR)

    def call_again(self) -> None:
        """Be a log handler, or a finalizer: submit one more item, if the batcher takes it."""
        self._left -= 1  # without a lock, which could be held by this thread
        if self._left < 0:
            return
        life = self._life
        item = Item(self._left, "none")
        if isinstance(life, Ours):
            try:
                life.batcher.stats()
                self._again.append((item, life.batcher.submit(item)))
            except BatcherError:  # it is full, stopped, or this thread is inside of it
                self.found["calls"] += 1
                self.found["refused or stopped"] += 1
        elif life is not None and threading.current_thread() is threading.main_thread():
            self._again.append((item, self._loop.create_task(life.call(item, None))))

    def sort(self, item: Item, answer: object, error: BaseException | None, *, stopped: bool) -> str:
        """Return the kind of an outcome: the end of a worker may come after its batch, and fail the next one."""
        if error is not None and ("ended from outside" in str(error) or (self._pools and "pool" in str(error))):
            return "failed"
        return super().sort(item, answer, error, stopped=stopped)

    async def end(self, patience: float) -> None:
        """Stop listening; count what came of the calls of the handlers."""
        of_the_library.removeHandler(self._handler)
        again, self._again = self._again, []
        futures = [future for _, future in again if isinstance(future, Future)]
        await asyncio.to_thread(wait_for_futures, futures, patience)
        tasks = [future for _, future in again if isinstance(future, asyncio.Task)]
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        for item, future in again:
            self.found["calls"] += 1
            if not future.done():
                self.found["no outcome"] += 1
                future.cancel()
            elif future.cancelled():
                self.found[NO_CAUSE] += 1
            else:
                error = future.exception()
                answer = None if error else future.result()
                self.found[self.sort(item, answer, error, stopped=True)] += 1
        self._life = None


if __name__ == "__main__":
    print(run(Fault.model_validate_json(sys.argv[1]), Trouble).model_dump_json())  # noqa: T201 - its result
