"""The threads for sync functions of the asyncio backend."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from batchers.drivers.threads import WorkerThreads
from batchers.errors import BatcherError


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
