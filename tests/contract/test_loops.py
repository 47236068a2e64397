"""Interchangeable in the strict sense: loops may come, go and die, whatever the backend."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import Any

import pytest

from batchers import BatchFunctionError, create_batcher
from tests.support.children import PATIENCE
from tests.support.gate import Flavour, Gate, until


def test_one_batcher_for_several_runs(backend: str, flavour: Flavour) -> None:
    """Made before any loop, used in one `asyncio.run` after the other."""
    gate = Gate()
    gate.open()
    batcher = create_batcher(backend, gate.function(flavour))
    for _ in range(3):

        async def main() -> Any:
            return await asyncio.gather(*(batcher.process(n) for n in range(10)))

        assert asyncio.run(main()) == list(range(10))
    batcher.close()


def test_the_loop_dies_under_a_batch_of_others(backend: str, flavour: Flavour) -> None:
    """`asyncio.run` in one thread ends; the callers of other threads are served all the same.

    An async function of the asyncio backend runs on that loop until its end. A batch that began there may fail.
    """
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    started = threading.Event()

    async def short_life() -> None:
        task = asyncio.create_task(batcher.process(0))
        await until(lambda: gate.started == 1)
        started.set()
        await until(lambda: batcher.stats().queued == 2)
        task.cancel()

    thread = threading.Thread(target=asyncio.run, args=(short_life(),))
    thread.start()
    started.wait()
    futures = [batcher.submit(n) for n in (1, 2)]
    thread.join()
    gate.open()

    concurrent.futures.wait(futures, PATIENCE)
    ends_with_its_loop = (backend, flavour) == ("asyncio", "async")
    for number, future in enumerate(futures, 1):
        error = future.exception(0)
        if ends_with_its_loop and error is not None:
            assert "the event loop that ran the batch has stopped" in str(error)
        else:
            assert future.result(0) == number
    assert batcher.submit(3).result() == 3
    batcher.close()
    assert batcher.stats().cancelled == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_the_loop_is_closed_with_a_batch_running(backend: str, flavour: Flavour) -> None:
    """Not by `asyncio.run`, but inconsistent down: the slot comes back and later callers are served."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    loop = asyncio.new_event_loop()
    task = loop.create_task(batcher.process(0))
    waiting = loop.create_task(batcher.process(1))
    loop.run_until_complete(until(lambda: gate.started == 1 and batcher.stats().queued == 1))
    loop.close()
    for lost in (task, waiting):
        lost._log_destroy_pending = False  # type: ignore[attr-defined]  # as a program that dies does
    del task, waiting, lost
    gate.open()

    assert asyncio.run(batcher.process(2)) == 2
    batcher.close()
    stats = batcher.stats()
    assert stats.submitted == stats.completed + stats.failed + stats.cancelled + stats.stopped


def test_a_loop_that_only_stopped(backend: str, flavour: Flavour) -> None:
    """Callers of a loop that runs no more do not keep others from theirs."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    loop = asyncio.new_event_loop()
    task = loop.create_task(batcher.process(0))
    loop.run_until_complete(until(lambda: gate.started == 1))

    async def other() -> Any:
        gate.open()
        return await batcher.process(1)

    assert asyncio.run(other()) == 1
    result = loop.run_until_complete(asyncio.gather(task, return_exceptions=True))[0]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    batcher.close()
    assert result == 0 or isinstance(result, BatchFunctionError)


def test_a_future_outlives_the_loop_that_submitted(backend: str, flavour: Flavour) -> None:
    """`submit` inside a short `asyncio.run`: the answer comes afterwards."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour))

    async def main() -> Any:
        return batcher.submit(1)

    future = asyncio.run(main())
    gate.open()
    assert future.result() == 1
    batcher.close()


def test_the_loop_is_closed_with_items_behind_a_sync_batch(
    backend: str, flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits behind it is served, without any further call. A batch that cannot end is logged."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(batcher.process(n)) for n in range(3)]
    loop.run_until_complete(until(lambda: gate.started == 1 and batcher.stats().queued == 2))
    future = batcher.submit(3)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    gate.open()

    assert future.result() == 3
    batcher.close()
    failed = 1 if (backend, flavour) == ("asyncio", "async") else 0
    assert [record.levelname for record in caplog.records if record.name != "asyncio"] == ["ERROR"] * failed


def test_a_loop_that_is_run_in_steps(backend: str, flavour: Flavour) -> None:
    """Between them it stands still; its callers are answered when it goes on."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1, timeout=60.0)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(batcher.process(1))
        loop.run_until_complete(until(lambda: gate.started == 1))
        gate.open()
        assert loop.run_until_complete(task) == 1
        assert loop.run_until_complete(batcher.process(2)) == 2
        loop.run_until_complete(batcher.stop())
