"""Promise 10: whose code runs where; forks, executors, contexts."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from typing import Any

import pytest

from batchers import (
    AsyncioBatcher,
    Batcher,
    BatcherError,
    BatcherStoppedError,
    OptionError,
    ThreadingBatcher,
    create_batcher,
)
from batchers.drivers import invocation
from tests.conftest import Make
from tests.support.children import in_fork
from tests.support.gate import Flavour, Gate, outcomes, until

KINDS: dict[str, type[Batcher[Any, Any]]] = {"threading": ThreadingBatcher, "asyncio": AsyncioBatcher}


def double(items: list[int]) -> list[int]:
    """Serve as a batch function that can be sent to another process."""
    return [2 * item for item in items]


def where(items: list[int]) -> list[int]:
    """Tell the process."""
    return [os.getpid() for _ in items]


@pytest.mark.parametrize("option", ["convert", "group_by", "cost"])
async def test_callbacks_run_in_the_caller(make: Make, gate: Gate, flavour: Flavour, option: str) -> None:
    """Their errors are the caller's alone, and no other thread runs them."""
    gate.open()
    threads = set()

    def callback(item: int) -> int:
        threads.add(threading.current_thread())
        if item == 3:
            raise KeyError(item)
        return item if option == "convert" else 1

    options: dict[str, Any] = {option: callback}
    if option == "cost":
        options["max_batch_cost"] = 100
    batcher = make(gate.function(flavour), **options)

    results = await outcomes(*(batcher.process(n) for n in range(5)))

    assert isinstance(results[3], KeyError)
    assert [results[n] for n in (0, 1, 2, 4)] == [0, 1, 2, 4]
    assert threads == {threading.current_thread()}
    assert batcher.stats().submitted == 4


async def test_the_converted_item_takes_its_place(make: Make, gate: Gate, flavour: Flavour) -> None:
    """For groups, costs and the batch function, whichever call hands it in."""
    gate.open()
    seen: list[Any] = []

    def cost(item: int) -> int:
        seen.append(item)
        return item

    batcher = make(
        gate.function(flavour), convert=int, group_by=lambda item: item % 2, cost=cost, max_batch_cost=100
    )

    assert await batcher.process("1") == 1
    assert await batcher.process_many(["2", "3"]) == [2, 3]
    assert await asyncio.to_thread(batcher.call, "4") == 4
    assert await asyncio.wrap_future(batcher.submit("5")) == 5
    assert seen == [1, 2, 3, 4, 5]
    assert sorted(gate.items) == [1, 2, 3, 4, 5]


async def test_an_item_that_cannot_be_converted_refuses_all_of_its_call(make: Make, gate: Gate) -> None:
    """`process_many` accepts all or none."""
    batcher = make(gate.function("sync"), convert=int)

    with pytest.raises(ValueError, match="invalid literal"):
        await batcher.process_many(["1", "no number"])

    assert batcher.stats().submitted == 0


@pytest.mark.parametrize("option", ["convert", "group_by"])
async def test_an_async_callback(make: Make, gate: Gate, option: str) -> None:
    """It would run nowhere: the error names the option."""

    async def callback(item: int) -> int:
        return item

    batcher = make(gate.function("sync"), **{option: callback})

    with pytest.raises(OptionError, match=rf"{option} returned a coroutine, .*callback\(\.\.\.\): give a plain"):
        await batcher.process(1)

    assert batcher.stats().submitted == 0


async def test_groups_must_be_hashable(make: Make, gate: Gate) -> None:
    """Told to the caller, before anything is queued."""
    batcher = make(gate.function("sync"), group_by=lambda item: [item])

    with pytest.raises(TypeError, match=r"group_by returned \[1\]: unhashable"):
        await batcher.process(1)

    assert batcher.stats().submitted == 0


async def test_context_variables_stay_with_their_callers(make: Make, flavour: Flavour) -> None:
    """The batch function sees none of anybody's."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")

    def work(items: list[Any]) -> list[str]:
        return [variable.get() for _ in items]

    async def work_async(items: list[Any]) -> list[str]:
        await asyncio.sleep(0)
        return work(items)

    batcher = make(work if flavour == "sync" else work_async)

    async def call(name: str) -> tuple[str, str]:
        variable.set(name)
        return await batcher.process(name), variable.get()

    results = await asyncio.gather(call("a"), call("b"))

    assert list(results) == [("nobody's", "a"), ("nobody's", "b")]


async def test_executor(make: Make) -> None:
    """A sync function runs where the user says, and the user's executor stays the user's."""
    names = []

    def work(items: list[Any]) -> list[Any]:
        names.append(threading.current_thread().name)
        return items

    with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        batcher = make(work, executor=executor)
        assert await asyncio.gather(*(batcher.process(n) for n in range(5))) == list(range(5))
        await batcher.stop()
        assert executor.submit(len, "abc").result() == 3
    assert all(name.startswith("mine") for name in names)


async def test_own_pool_is_not_the_loops(make: Make, gate: Gate) -> None:
    """With the loop's default pool blocked, batches run."""
    blocked = threading.Event()
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(1)
    loop.set_default_executor(pool)
    waiting = loop.run_in_executor(None, blocked.wait)
    gate.open()
    batcher = make(gate.function("sync"))

    assert await batcher.process(1) == 1
    blocked.set()
    await waiting


class Doubler(ThreadingBatcher[int, int]):
    """A subclass whose method is sent to another process, with what it knows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.factor = 2

    def process_batch(self, batch: list[int]) -> list[int]:
        return [self.factor * item for item in batch]


class AsyncioDoubler(AsyncioBatcher[int, int]):
    """The same on the other backend."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.factor = 2

    process_batch = Doubler.process_batch


@pytest.fixture(scope="module")
def processes() -> Any:
    """Give a pool of one process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        executor.submit(os.getpid).result()  # its threads and pipes are older than the tests' leak checks
        yield executor


async def test_process_pool(processes: Executor, backend: str) -> None:
    """Functions and methods run in another process; errors come back."""
    async with create_batcher(backend, where, executor=processes) as batcher:
        assert await batcher.process(1) not in (os.getpid(), None)
    async with (Doubler if backend == "threading" else AsyncioDoubler)(executor=processes) as doubler:
        assert await asyncio.gather(*(doubler.process(n) for n in range(10))) == list(range(0, 20, 2))

    def local(items: list[int]) -> list[int]:
        return items

    async with create_batcher(backend, local, executor=processes) as batcher:
        (error,) = await outcomes(batcher.process(1))
        assert "local" in str(error)  # pickle's own words


def through_another(items: list[int]) -> list[int]:
    """Call another batcher, the first one of this process: it is not the one that runs this."""
    with ThreadingBatcher[int, int](list) as other:
        return [other.call(item) for item in items]


async def test_a_batcher_in_a_process_of_a_pool(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never taken for the batcher whose function runs there, which would be refused as reentrant."""
    monkeypatch.setattr(invocation, "_ids", count(1))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        async with create_batcher(backend, through_another, executor=executor) as batcher:
            assert await batcher.process(7) == 7


async def test_executor_that_is_shut_down(make: Make, gate: Gate) -> None:
    """What runs is served, what waits is told why; the batcher can still be stopped."""
    executor = ThreadPoolExecutor(1)
    batcher = make(gate.function("sync"), executor=executor, max_batch_size=1)
    running = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    waiting = asyncio.create_task(batcher.process(2))
    await until(lambda: batcher.stats().queued == 1)
    executor.shutdown(wait=False)
    gate.open()

    assert await running == 1
    with pytest.raises(BatcherError, match="stop the batcher before its executor"):
        await waiting


class Unwilling(Executor):
    """An executor that cannot."""

    def submit(self, *_: Any, **__: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")


async def test_executor_that_raises(make: Make) -> None:
    """Whatever it raises: the callers hear of it, and the slot comes back."""
    batcher = make(double, executor=Unwilling())

    for _ in range(2):
        (error,) = await outcomes(batcher.process(1))
        assert isinstance(error, BlockingIOError)


async def test_executor_of_an_async_function(backend: str, processes: Executor) -> None:
    """It would be ignored: so it is refused."""
    with pytest.raises(OptionError, match="async process_batch"):
        create_batcher(backend, Gate().function("async"), executor=processes)


async def test_a_sync_function_may_return_an_awaitable(make: Make) -> None:
    """As wrappers of async functions do."""

    async def work(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [2 * item for item in items]

    batcher = make(lambda items: work(items))

    assert await asyncio.gather(*(batcher.process(n) for n in range(5))) == [0, 2, 4, 6, 8]


class AsyncCallable:
    """An object with an async `__call__`."""

    async def __call__(self, items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return items


async def test_an_object_with_an_async_call(make: Make) -> None:
    """Is an async function."""
    batcher = make(AsyncCallable())

    assert await batcher.process(1) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_idle_and_while_running(backend: str, flavour: Flavour) -> None:
    """The child starts afresh; the parent's items stay the parent's."""
    gate = Gate(lambda item: -item)
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    running, waiting = batcher.submit(1), batcher.submit(2)
    while gate.started < 1:
        pass

    def child() -> None:
        gate.open()
        assert batcher.stats().submitted == 0
        assert batcher.submit(3).result() == -3
        batcher.close()

    assert in_fork(child) == 0
    gate.open()
    assert (running.result(), waiting.result()) == (-1, -2)
    assert in_fork(child) == 0
    batcher.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_a_stop(backend: str) -> None:
    """What is stopped stays stopped."""
    batcher = create_batcher(backend, double)
    assert batcher.submit(1).result() == 2
    batcher.close()

    def child() -> None:
        with pytest.raises(BatcherStoppedError):
            batcher.submit(1)
        batcher.close()

    assert in_fork(child) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_with_an_executor(backend: str) -> None:
    """Its workers stay in the parent: the child gets a clear error."""
    with ThreadPoolExecutor(1) as executor, create_batcher(backend, double, executor=executor) as batcher:
        assert batcher.submit(1).result() == 2

        def child() -> None:
            with pytest.raises(BatcherError, match="was forked"):
                batcher.submit(1)
            batcher.close()

        assert in_fork(child) == 0
        assert batcher.submit(1).result() == 2
