"""The threads of the drivers: workers for sync functions, and loops for async ones."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any

import pytest

from batchers.drivers.loops import LoopThread
from batchers.drivers.threads import DaemonThread, WorkerThreads
from batchers.errors import BatcherError
from tests.support.children import PATIENCE


def test_a_thread_that_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work waits behind another one's meanwhile; it is not lost, and the next work gets its own thread."""
    workers = WorkerThreads(3, "worker")
    go = threading.Event()
    started: list[int] = []
    start = threading.Thread.start
    failing = [False]

    def sometimes(self: threading.Thread) -> None:
        if failing[0]:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        start(self)

    def work(number: int) -> Any:
        def run() -> None:
            started.append(number)
            go.wait()

        return run

    monkeypatch.setattr(threading.Thread, "start", sometimes)
    failing[0] = True
    with pytest.raises(BatcherError, match="the batcher cannot start: can't start new thread; free threads"):
        workers.run(work(0))
    failing[0] = False
    workers.run(work(1))
    failing[0] = True
    workers.run(work(2))
    failing[0] = False
    workers.run(work(3))
    while len(started) < 2:
        pass
    assert len(workers.threads) == 2
    go.set()
    while len(started) < 3:
        pass
    workers.stop_soon()
    for thread in workers.threads:
        thread.ended.result()
        thread.join()
    assert sorted(started) == [1, 2, 3]


def test_a_start_that_is_interrupted_after_the_thread_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread lives, and calls what it was given meanwhile."""
    workers = WorkerThreads(3, "worker")
    first, second = threading.Event(), threading.Event()
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        assert first.wait(PATIENCE)
        while not workers._free:
            pass
        workers._lock.acquire()  # so that the thread does not begin with it before the exception
        workers.run(second.set)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(SystemExit):
            workers.run(first.set)
    workers._lock.release()
    assert second.wait(PATIENCE)
    workers.stop_soon()
    for thread in workers.threads:
        thread.ended.result(PATIENCE)
        thread.join()


def test_a_thread_ends_although_its_end_fails() -> None:
    """`ended` does not depend on what the driver does at the end."""

    def fail(_: object) -> None:
        raise SystemExit

    thread = DaemonThread(lambda _: None, "worker", at_end=fail)
    thread.ended.result(PATIENCE)
    assert thread.is_dead
    thread.join()


async def test_a_loop_whose_close_was_interrupted(caplog: pytest.LogCaptureFixture) -> None:
    """CPython cannot close it a second time; what runs there ends anyway, and the driver is told."""

    class Driver:
        def at_end(self) -> None:
            told.set()

    told = threading.Event()
    driver = Driver()
    thread = LoopThread("loop", None, weakref.WeakMethod(driver.at_end))
    close = thread.loop.close
    running = thread.run(asyncio.sleep(3600))

    def fail() -> None:
        msg = "Invalid file descriptor: -1"
        raise ValueError(msg)

    thread.loop.close = fail  # type: ignore[method-assign]
    thread.stop_soon()
    await asyncio.wrap_future(thread.thread.ended)
    assert told.is_set()
    assert running.done()
    assert not thread.is_running
    late = thread.run(asyncio.sleep(0))
    with pytest.raises(asyncio.CancelledError):
        late.result(0)
    thread.loop.close = close  # type: ignore[method-assign]
    thread.loop.close()
    assert not caplog.records
