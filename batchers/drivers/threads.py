"""Threads that batchers start: daemon threads whose end can be awaited, and a pool for sync batch functions."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from queue import SimpleQueue

from batchers.errors import BatcherError

_own = threading.local()


def in_daemon_thread() -> bool:
    """Return True if any batcher has started the current thread."""
    return getattr(_own, "thread", False)


class DaemonThread:
    """A daemon thread that a batcher starts.

    The future `ended` makes its end awaitable without another thread.
    """

    __slots__ = ("_thread", "ended")

    def __init__(self, function: Callable[[DaemonThread], object], name: str) -> None:
        """Start the thread, which calls `function` with this object.

        Raises RuntimeError if the thread cannot start.
        """
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(function,), name=name, daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[DaemonThread], object]) -> None:
        _own.thread = True
        try:
            function(self)
        finally:
            del function
            self.ended.set_result(None)

    @property
    def is_current(self) -> bool:
        """True if the calling thread is this thread."""
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """Wait for the short time that the interpreter needs to remove a thread whose function has ended.

        Return at once if the function is still running.
        """
        if self.ended.done():
            self._thread.join()


class WorkerThreads:
    """Worker threads for sync batch functions.

    A new thread is started only when no worker is free.
    """

    __slots__ = ("_free", "_lock", "_most", "_name", "_queue", "busy", "threads")

    def __init__(self, most: int, name: str) -> None:
        """Initialise a pool of at most `most` workers, without starting any."""
        self._most = most
        self._name = name
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self.threads: set[DaemonThread] = set()
        self.busy: set[DaemonThread] = set()

    def prepare(self) -> None:
        """Start the first worker, if there is none.

        Raises RuntimeError if it cannot start.
        """
        with self._lock:
            if not self.threads:
                self.threads.add(DaemonThread(self._serve, f"{self._name}-1"))
                self._free += 1

    def run(self, work: Callable[[], object]) -> None:
        """Call `work`, which must not raise, in a worker thread.

        Raises BatcherError if there is no worker and none can start.
        """
        with self._lock:
            if self._free <= 0 and len(self.threads) < self._most:
                try:
                    self.threads.add(DaemonThread(self._serve, f"{self._name}-{len(self.threads) + 1}"))
                    self._free += 1
                except RuntimeError as error:
                    if not self.threads:  # otherwise one of the existing workers runs it later
                        msg = f"no thread can run the batch: {error}"
                        raise BatcherError(msg) from error
            self._queue.put(work)
            self._free -= 1

    def stop_soon(self) -> None:
        """Let each worker end as soon as it is free.

        Safe in a finalizer, because it takes no lock.
        """
        for _ in range(len(self.threads)):
            self._queue.put(None)

    def _serve(self, me: DaemonThread) -> None:
        while (work := self._queue.get()) is not None:
            self.busy.add(me)
            work()
            del work
            self.busy.discard(me)
            with self._lock:
                self._free += 1
