"""Batch functions that return arrays, and ones that must be refused; mypy and pyright check what they infer.

Each `type: ignore` in here is a test: without an error in its line, mypy reports it as unused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

from batchers import AsyncioBatcher, Batcher, ThreadingBatcher, batched, create_batcher
from batchers.arrays import Padding, Stacked, rows, stacked

Array = npt.NDArray[np.float32]


def predict(rows: list[Array]) -> Array:
    """Return an array with a row for each item."""
    return np.stack(rows) * 2


async def predict_async(rows: list[Array]) -> Array:
    """Do the same as a coroutine."""
    return np.stack(rows) * 2


class Model(ThreadingBatcher[Array, Any]):
    """Override the method so."""

    def process_batch(self, batch: list[Array]) -> Array:
        """Return an array."""
        return np.stack(batch)


class AsyncModel(AsyncioBatcher[Array, Any]):
    """Override it as async."""

    async def process_batch(self, batch: list[Array]) -> Array:
        """Return an array."""
        return np.stack(batch)


@batched("threading")
def predicted(rows: list[Array]) -> Array:
    """Decorate a function."""
    return np.stack(rows)


@batched("asyncio")
async def predicted_async(rows: list[Array]) -> Array:
    """Decorate a coroutine function."""
    return np.stack(rows)


async def embed(array: Array) -> Array:
    """Take one array for all items."""
    return array


class StackedModel(AsyncioBatcher[Any, Any]):
    """Stack a method."""

    def __init__(self) -> None:
        """Pass it on."""
        super().__init__(stacked(self.embed, rows((10,), "float32")))

    def embed(self, array: Array) -> Array:
        """Take one array for all items."""
        return array


batched("asyncio", max_batch_size=8)(stacked(embed))
assert_type(stacked(embed), Stacked)
assert_type(stacked(np.sin, rows((3,), "float32"), batch_sizes=(1, 8)), Stacked)
create_batcher("threading", stacked(np.sin, rows((3,), "float32")))
create_batcher("asyncio", stacked(embed, {"ids": rows((None,), "int64")}, padding=Padding(to=8, mask=True)))
StackedModel()
stacked(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def one_value(items: list[int]) -> int:
    """Return no rows."""
    return len(items)


def nothing(items: list[int]) -> None:
    """Return nothing."""


def one_by_one(items: list[int]) -> Iterator[int]:
    """Be a generator."""
    yield from items


def as_set(items: list[int]) -> set[int]:
    """Return what has no order."""
    return set(items)


def by_name(items: list[int]) -> dict[str, int]:
    """Return a mapping."""
    return {str(item): item for item in items}


async def use(row: Array) -> None:
    """Call them."""
    batcher = create_batcher("asyncio", predict)
    assert_type(batcher, Batcher[Array, Any])
    assert_type(await batcher.process(row), Any)
    create_batcher("threading", predict_async)
    await Model().process(row)
    await AsyncModel().process(row)
    predicted(row)
    await predicted_async.aprocess(row)


def refuse() -> None:
    """Give what is no batch function."""
    create_batcher("asyncio", one_value)  # type: ignore[arg-type]
    create_batcher("asyncio", nothing)  # type: ignore[arg-type]
    create_batcher("asyncio", one_by_one)  # type: ignore[arg-type]
    create_batcher("asyncio", as_set)  # type: ignore[arg-type]
    create_batcher("asyncio", by_name)  # type: ignore[arg-type]
    ThreadingBatcher(one_value)  # type: ignore[arg-type]
    batched("threading")(one_value)  # type: ignore[arg-type]
