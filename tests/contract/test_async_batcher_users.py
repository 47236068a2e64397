"""What users of async-batcher 0.2 do works here, on both backends; docs/from-async-batcher.md says how."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batchers import AsyncioBatcher, BatcherStoppedError, QueueFullError, ThreadingBatcher
from tests.support.gate import outcomes


class Threads(ThreadingBatcher[int, int]):
    """A subclass as theirs, with an async method."""

    async def process_batch(self, batch: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [2 * item for item in batch]


class Loop(AsyncioBatcher[int, int]):
    """The same on the other backend."""

    process_batch = Threads.process_batch


class SyncThreads(ThreadingBatcher[int, int]):
    """A subclass with a sync method, which runs in the executor."""

    def process_batch(self, batch: list[int]) -> list[int]:
        return [2 * item for item in batch]


class SyncLoop(AsyncioBatcher[int, int]):
    """The same on the other backend."""

    process_batch = SyncThreads.process_batch


@pytest.mark.parametrize("kind", [Threads, Loop])
async def test_documented_arguments_and_methods(kind: Any) -> None:
    """All of them, with their special values."""
    batcher = kind(max_batch_size=16, max_queue_time=0.001, concurrency=-1, max_queue_size=-1, executor=None)
    assert not await batcher.is_running()
    assert await batcher.process(item=21) == 42
    assert await batcher.is_running()
    assert await asyncio.gather(*(batcher.process(item=n) for n in range(50))) == list(range(0, 100, 2))
    await batcher.stop(force=False, timeout=5.0)
    assert not await batcher.is_running()
    with pytest.raises(RuntimeError, match="stopped"):
        await batcher.process(item=1)


@pytest.mark.parametrize("kind", [SyncThreads, SyncLoop])
async def test_executor_for_a_sync_method(kind: Any) -> None:
    """As `ThreadPoolExecutor(12)` of their benchmark."""
    with ThreadPoolExecutor(12) as executor:
        async with kind(concurrency=12, max_queue_time=0.01, executor=executor) as batcher:
            assert await asyncio.gather(*(batcher.process(item=n) for n in range(100))) == list(range(0, 200, 2))


@pytest.mark.parametrize("kind", [Threads, Loop])
async def test_full_queue_and_forced_stop(kind: Any) -> None:
    """A full queue is an error at once; a forced stop leaves nobody waiting, as it did there."""
    batcher = kind(max_batch_size=2, max_queue_size=1, max_queue_time=30.0)
    waiting = asyncio.create_task(batcher.process(item=1))
    await asyncio.sleep(0)
    (refused,) = await outcomes(batcher.process(item=2))
    await batcher.stop(force=True)
    (stopped,) = await outcomes(waiting)

    assert isinstance(refused, QueueFullError)
    assert isinstance(stopped, BatcherStoppedError)


def test_signatures() -> None:
    """Names and defaults that they rely on."""
    stop = inspect.signature(AsyncioBatcher.stop).parameters
    assert [(p.name, p.default) for p in stop.values()][1:] == [("force", False), ("timeout", None)]
    assert "item" in inspect.signature(AsyncioBatcher.process).parameters
