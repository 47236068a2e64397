"""The public API as its users write it; mypy and pyright check what they infer."""

from __future__ import annotations

import concurrent.futures
from typing import assert_type

from batchers import (
    AsyncioBatcher,
    Batched,
    Batcher,
    BatcherStats,
    ThreadingBatcher,
    Window,
    batched,
    create_batcher,
)


def lengths(texts: list[str]) -> list[int]:
    """Give a sync batch function."""
    return [len(text) for text in texts]


async def lengths_async(texts: list[str]) -> list[int]:
    """Give an async one."""
    return [len(text) for text in texts]


class Lengths(AsyncioBatcher[str, int]):
    """Give a subclass."""

    async def process_batch(self, batch: list[str]) -> list[int]:
        """Override it as async."""
        return [len(text) for text in batch]


@batched("threading", max_batch_size=32)
def length(texts: list[str]) -> list[int]:
    """Give a decorated function."""
    return [len(text) for text in texts]


class Model:
    """Give a decorated method."""

    @batched("asyncio", concurrency=2)
    async def length(self, texts: list[str]) -> list[int]:
        """Take a list, as the batch function."""
        return [len(text) for text in texts]


async def use() -> None:
    """Call all of it."""
    batcher = create_batcher("asyncio", lengths, max_batch_size=8, policy=Window(0.01))
    assert_type(batcher, Batcher[str, int])
    assert_type(await batcher.process("a", timeout=1.0, priority=2), int)
    assert_type(await batcher.process_many(["a", "b"]), list[int])
    assert_type(batcher.submit("a"), concurrent.futures.Future[int])
    assert_type(batcher.stats(), BatcherStats)
    assert_type(ThreadingBatcher(lengths), ThreadingBatcher[str, int])
    assert_type(AsyncioBatcher(lengths_async), AsyncioBatcher[str, int])
    assert_type(await Lengths(max_batch_size=4).process("a"), int)
    assert_type(length, Batched[str, int])
    assert_type(length("a"), int)
    assert_type(await Model().length.aprocess("a"), int)
    async with batcher as same:
        assert_type(same, Batcher[str, int])
