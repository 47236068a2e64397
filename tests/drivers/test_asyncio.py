"""What only the asyncio backend can get wrong: loops that come, go and die.

One-sided, because threads have no loop.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from batchers import AsyncioBatcher, BatcherError
from batchers.drivers.asyncio_driver import AsyncioDriver
from tests.support.gate import Gate, outcomes, until
from tests.support.inside import asyncio_driver_of


def test_async_functions_run_on_the_loop_of_the_first_caller() -> None:
    """Whoever calls afterwards, until that loop ends: the function may use what belongs to it."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def work(items: list[int]) -> list[int]:
        loops.append(asyncio.get_running_loop())
        return items

    batcher: AsyncioBatcher[int, int] = AsyncioBatcher(work)

    async def main() -> None:
        await batcher.process(1)
        assert loops[-1] is asyncio.get_running_loop()
        await asyncio.to_thread(lambda: batcher.submit(2).result())
        assert loops[-1] is asyncio.get_running_loop()
        await batcher.process(3)
        assert loops[-1] is loops[-2]

    asyncio.run(main())
    asyncio.run(main())
    assert len(set(loops)) == 2
    assert batcher.call(4) == 4
    assert loops[-1] not in loops[:-1]
    batcher.close()


async def test_batches_are_closed_after_the_turn_of_the_loop(gate: Gate) -> None:
    """All that callers hand in within one turn is one batch, also for an idle batcher."""
    gate.open()
    async with AsyncioBatcher(gate.function("async")) as batcher:
        await asyncio.gather(*(batcher.process(n) for n in range(50)))
    assert gate.seen == [list(range(50))]


async def test_callers_that_come_back_at_once_stay_together(gate: Gate) -> None:
    """Answers go out before the next batch is formed."""
    gate.open()

    async def client(batcher: AsyncioBatcher[int, int]) -> None:
        for n in range(10):
            await batcher.process(n)

    async with AsyncioBatcher(gate.function("async")) as batcher:
        await asyncio.gather(*(client(batcher) for _ in range(20)))
    assert [len(batch) for batch in gate.seen] == [20] * 10


async def test_nothing_blocks_the_loop(gate: Gate, no_blocking: None) -> None:
    """No call of the batcher blocks the event loop."""
    gate.open()
    batcher: AsyncioBatcher[int, int] = AsyncioBatcher(gate.function("async"), timeout=60, max_queue_time=0.001)
    assert await asyncio.gather(*(batcher.process(n) for n in range(100))) == list(range(100))
    await outcomes(batcher.process(1, timeout=0))
    batcher.stats()
    await batcher.stop()


def test_eager_tasks() -> None:
    """A task factory that runs tasks at once changes nothing."""
    factory: Any = getattr(asyncio, "eager_task_factory", None)  # from Python 3.12 on

    async def work(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        async with AsyncioBatcher(work, max_batch_size=3) as batcher:
            assert await asyncio.gather(*(batcher.process(n) for n in range(10))) == list(range(10))
        assert asyncio_driver_of(batcher)._tasks == {}

    asyncio.run(main())


def test_a_task_cancelled_before_it_began(gate: Gate) -> None:
    """Whoever cancels every task of the loop cancels ours too: it has no batch yet, and another asks for it."""
    gate.open()

    async def main() -> None:
        batcher: AsyncioBatcher[int, int] = AsyncioBatcher(gate.function("async"))
        caller = asyncio.create_task(batcher.process(1))
        await until(lambda: asyncio_driver_of(batcher)._tasks)
        for task in asyncio_driver_of(batcher)._tasks:
            task.cancel()
        assert await caller == 1
        assert await batcher.process(2) == 2
        await batcher.stop()

    asyncio.run(main())


def test_a_loop_that_ends_with_others_waiting_behind_its_batch() -> None:
    """Its batch holds the only slot: it is given up, and they are served, without any further call."""
    gate = Gate()
    batcher: AsyncioBatcher[int, int] = AsyncioBatcher(gate.function("async"), max_batch_size=1)
    loop = asyncio.new_event_loop()
    stop = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        task = loop.create_task(batcher.process(0))
        loop.run_until_complete(until(stop.is_set))
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it dies with its loop

    thread = threading.Thread(target=run)
    thread.start()
    while gate.started < 1:
        pass
    future = batcher.submit(1)
    stop.set()
    thread.join()
    gate.let_waiting(0)
    gate.open()
    assert future.result() == 1
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    batcher.close()


async def test_close_on_the_loop_of_its_own_batch() -> None:
    """Also when the batcher has moved on since: refused, instead of a loop that waits for itself."""
    gate = Gate()
    batcher: AsyncioBatcher[int, int] = AsyncioBatcher(gate.function("async"))
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    future = batcher.submit(2)  # as a thread would: now it lives on a loop of its own
    with pytest.raises(BatcherError, match="await stop"):
        batcher.close()
    gate.open()
    await batcher.stop()
    assert (await task, future.result()) == (1, 2)


async def test_no_task_is_left_after_a_stop_out_of_time(gate: Gate) -> None:
    """The batch that hung was cancelled, and has ended when `stop` returns."""
    before = asyncio.all_tasks()
    batcher: AsyncioBatcher[int, int] = AsyncioBatcher(gate.function("async"))
    caller = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    await batcher.stop(timeout=0)
    await outcomes(caller)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("factory", ["old", "raising"])
def test_task_factories_of_all_kinds(factory: str) -> None:
    """One that knows no context is as good as any; one that raises fails the batch, and the slot comes back."""

    async def work(items: list[int]) -> list[int]:
        return items

    def old(loop: asyncio.AbstractEventLoop, work: Any, **_: Any) -> asyncio.Task[Any]:
        if factory == "raising" and work.__qualname__.endswith("_work"):
            msg = "no more tasks"
            raise RuntimeError(msg)
        return asyncio.Task(work, loop=loop)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        batcher: AsyncioBatcher[int, int] = AsyncioBatcher(work)
        loop.set_task_factory(lambda loop, work: old(loop, work))  # type: ignore[arg-type,unused-ignore]
        (result,) = await outcomes(batcher.process(1))
        if factory == "old":
            assert result == 1
        else:
            assert str(result) == "no more tasks"
        loop.set_task_factory(None)
        assert await batcher.process(2) == 2
        await batcher.stop()

    asyncio.run(main())


async def test_an_interrupt_between_decision_and_batch(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """A signal handler raises while the task of a batch lets somebody ask next: its callers are told."""
    gate.open()
    batcher: AsyncioBatcher[int, int] = AsyncioBatcher(gate.function("async"), max_batch_size=1, concurrency=2)
    perform = AsyncioDriver._perform

    def interrupted(driver: AsyncioDriver[Any, Any], here: Any) -> None:
        if any(driver._tasks.values()):
            monkeypatch.setattr(AsyncioDriver, "_perform", perform)
            msg = "an alarm"
            raise TimeoutError(msg)
        perform(driver, here)

    monkeypatch.setattr(AsyncioDriver, "_perform", interrupted)
    first, second = await outcomes(batcher.process(1), batcher.process(2))
    assert isinstance(first, TimeoutError)
    assert second == 2
    await batcher.stop()
    assert asyncio_driver_of(batcher)._tasks == {}


def test_a_factory_that_runs_to_the_end() -> None:
    """It returns what is done already, and is no task for asyncio: nothing is kept of it, and all are served."""

    async def work(items: list[int]) -> list[int]:
        return items

    class Done(asyncio.Future[None]):
        def set_name(self, name: str) -> None:
            """Take a name, as every task must."""

    def at_once(loop: asyncio.AbstractEventLoop, work: Any, **_: Any) -> Any:
        if not work.__qualname__.endswith("_work"):
            return asyncio.Task(work, loop=loop)
        with pytest.raises(StopIteration):
            work.send(None)
        done = Done(loop=loop)
        done.set_result(None)
        return done

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(at_once)
        batcher: AsyncioBatcher[int, int] = AsyncioBatcher(work, max_batch_size=3)
        for _ in range(2):
            assert await asyncio.gather(*(batcher.process(n) for n in range(10))) == list(range(10))
        assert asyncio_driver_of(batcher)._tasks == {}
        await batcher.stop()

    asyncio.run(main())
