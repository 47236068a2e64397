"""Promise 9: stopping serves, fails or gives up as told, in time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from batchers import BatcherError, BatcherStoppedError, OptionError, ReentrantCallError, create_batcher
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, outcomes, until
from tests.support.leaks import check_quiet


async def test_stop_serves_all_that_was_accepted(make: Make, gate: Gate, flavour: Flavour) -> None:
    """With a batch running and others waiting."""
    batcher = make(gate.function(flavour), max_batch_size=2)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(7)]
    await until(lambda: gate.started == 1)
    await until(lambda: batcher.stats().submitted == 7)
    stopping = asyncio.create_task(batcher.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    with pytest.raises(BatcherStoppedError):
        await batcher.process("too late")
    gate.open()
    await stopping

    assert await asyncio.gather(*tasks) == list(range(7))


async def test_force_fails_what_waits_at_once(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Two run and are served, four wait and are told."""
    batcher = make(gate.function(flavour), max_batch_size=2)
    first = asyncio.create_task(batcher.process("first"))
    await until(lambda: gate.started == 1)
    running = [asyncio.create_task(batcher.process(n)) for n in range(2)]
    await until(lambda: batcher.stats().queued == 2)
    gate.let(1)
    await until(lambda: gate.started == 2)
    waiting = [asyncio.create_task(batcher.process(n)) for n in range(4)]
    await until(lambda: batcher.stats().queued == 4)

    stopping = asyncio.create_task(batcher.stop(force=True))
    results = await outcomes(*waiting)
    assert [type(result) for result in results] == [BatcherStoppedError] * 4
    assert not stopping.done()
    gate.open()
    await stopping

    assert await asyncio.gather(first, *running) == ["first", 0, 1]


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_a_stop_that_runs_out_of_time(
    make: Make, gate: Gate, flavour: Flavour, timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    """It returns, says who is stuck, and every caller is told."""
    batcher = make(gate.function(flavour), max_batch_size=2, name="slow")
    first = asyncio.create_task(batcher.process("first"))
    await until(lambda: gate.started == 1)
    waiting = [asyncio.create_task(batcher.process(n)) for n in range(3)]
    await until(lambda: batcher.stats().queued == 3)

    await batcher.stop(timeout=timeout)

    results = await outcomes(first, *waiting)
    assert [type(result) for result in results] == [BatcherStoppedError] * 4
    assert "'slow'" in caplog.text
    assert "4 callers" in caplog.text
    stats = batcher.stats()
    assert (stats.stopped, stats.queued, stats.running) == (4, 0, 0)
    gate.open()


async def test_stop_in_any_order_and_by_several(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Drain, then force; twice, by two tasks; and once more when all is over."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    running = asyncio.create_task(batcher.process(0))
    await until(lambda: gate.started == 1)
    waiting = asyncio.create_task(batcher.process(1))
    await until(lambda: batcher.stats().queued == 1)
    stops = [asyncio.create_task(batcher.stop()), asyncio.create_task(batcher.stop())]
    await asyncio.sleep(0)
    assert not waiting.done()
    stops.append(asyncio.create_task(batcher.stop(force=True)))
    (result,) = await outcomes(waiting)
    gate.open()
    await asyncio.gather(*stops)
    await batcher.stop()

    assert isinstance(result, BatcherStoppedError)
    assert await running == 0
    assert not await batcher.is_running()


async def test_a_cancelled_stop_goes_on(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The one who waited has left; the stop itself is not undone, and others can wait for it."""
    batcher = make(gate.function(flavour))
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    stopping = asyncio.create_task(batcher.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await outcomes(stopping)
    gate.open()

    await batcher.stop()
    assert await task == 1


async def test_never_started(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Stopping what never ran is done at once, and starts no thread."""
    before = threading.active_count()
    batcher = make(gate.function(flavour))
    assert not await batcher.is_running()
    await batcher.stop()

    assert threading.active_count() == before
    with pytest.raises(BatcherStoppedError, match="make a new one"):
        await batcher.process(1)
    with pytest.raises(RuntimeError):
        batcher.submit(1)


async def test_nothing_is_left(make: Make, gate: Gate, flavour: Flavour) -> None:
    """No thread, task or timer, after every kind of use."""
    gate.open()
    before, tasks = threading.active_count(), asyncio.all_tasks()
    batcher = make(gate.function(flavour), concurrency=3, max_queue_time=0.001, timeout=60.0)
    await asyncio.gather(*(batcher.process(n) for n in range(20)))
    await asyncio.wrap_future(batcher.submit(1))
    await outcomes(batcher.process(1, timeout=0))
    await batcher.stop()

    check_quiet(tasks)
    assert threading.active_count() == before


@pytest.mark.race
@pytest.mark.parametrize("seed", range(5))
async def test_submit_races_with_stop(backend: str, flavour: Flavour, seed: int) -> None:
    """Each call is served or refused; none hangs."""
    gate = Gate()
    gate.open()
    rng = random.Random(seed)
    for _ in range(20):
        batcher = create_batcher(backend, gate.function(flavour), max_batch_size=2, concurrency=2)
        barrier = threading.Barrier(4)
        results: list[Any] = []

        def rush(barrier: threading.Barrier = barrier, results: list[Any] = results) -> None:
            barrier.wait()
            for n in range(10):
                try:
                    results.append(batcher.submit(n))  # noqa: B023 - it ends within the turn
                except BatcherStoppedError as error:
                    results.append(error)

        threads = [threading.Thread(target=rush) for _ in range(3)]
        for thread in threads:
            thread.start()
        barrier.wait()
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        await batcher.stop(force=rng.random() < 0.5)
        await until(lambda threads=threads: not any(thread.is_alive() for thread in threads))  # type: ignore[misc]
        assert len(results) == 30
        for result in results:
            if not isinstance(result, BatcherStoppedError):
                assert result.done()
                assert result.exception() is None or isinstance(result.exception(), BatcherStoppedError)


async def test_close_from_a_thread(make: Make, gate: Gate, flavour: Flavour) -> None:
    """For callers without a loop; with the same meaning."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    futures = [batcher.submit(n) for n in range(3)]
    await until(lambda: gate.started == 1)
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    await until(lambda: "stopping" in repr(batcher))
    gate.open()
    await closing

    assert [future.result() for future in futures] == [0, 1, 2]
    assert "stopped" in repr(batcher)


def test_close_without_any_loop(backend: str, flavour: Flavour) -> None:
    """A program of threads needs no asyncio."""
    gate = Gate()
    gate.open()
    with create_batcher(backend, gate.function(flavour)) as batcher:
        futures = [batcher.submit(n) for n in range(10)]
    assert [future.result() for future in futures] == list(range(10))

    with create_batcher(backend, gate.function(flavour)) as batcher:
        pass
    with pytest.raises(BatcherStoppedError):
        batcher.submit(1)


async def test_close_would_block_its_own_loop(gate: Gate) -> None:
    """The asyncio backend refuses it there, and says what to do."""
    gate.open()
    async with create_batcher("asyncio", gate.function("async")) as batcher:
        await batcher.process(1)
        with pytest.raises(BatcherError, match="await stop"):
            batcher.close()


async def test_async_with(backend: str, gate: Gate, flavour: Flavour) -> None:
    """Leaving the block serves what was accepted."""
    gate.open()
    async with create_batcher(backend, gate.function(flavour)) as batcher:
        task = asyncio.create_task(batcher.process(1))
        await asyncio.sleep(0)
    assert await task == 1
    assert not await batcher.is_running()


@pytest.mark.parametrize("call", ["process", "stop"])
async def test_calls_from_inside_async(make: Make, call: str) -> None:
    """`process_batch` that waits for its own batcher is told that this can never end."""
    found: list[Exception] = []

    async def work(items: list[Any]) -> list[Any]:
        try:
            await (batcher.process(2) if call == "process" else batcher.stop())
        except ReentrantCallError as error:
            found.append(error)
        return items

    batcher = make(work)

    assert await batcher.process(1) == 1
    assert isinstance(found[0], RuntimeError)


@pytest.mark.parametrize("call", ["submit", "close"])
async def test_calls_from_inside_sync(make: Make, call: str) -> None:
    """The same for threads."""
    found: list[Exception] = []

    def work(items: list[Any]) -> list[Any]:
        calls: dict[str, Callable[[], object]] = {
            "submit": lambda: batcher.submit(2).result(),
            "close": batcher.close,
        }
        try:
            calls[call]()
        except ReentrantCallError as error:
            found.append(error)
        return items

    batcher = make(work)

    assert await batcher.process(1) == 1
    assert isinstance(found[0], RuntimeError)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_impossible_timeouts(make: Make, gate: Gate, timeout: float) -> None:
    """Refused at once, and nothing is stopped."""
    gate.open()
    batcher = make(gate.function("sync"))

    with pytest.raises(OptionError, match="timeout"):
        await batcher.stop(timeout=timeout)

    assert await batcher.process(1) == 1
