"""Promise 7: a wrong result is an error, never somebody else's answer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from batchers import BatchResultError
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, outcomes


class Columns(NamedTuple):
    """Two results for each item, as columns."""

    means: list[Any]
    stds: list[Any]


class Frame(list[Any]):
    """As many rows as columns, and it iterates over the columns."""

    columns = ("mean", "std")


WRONG: dict[str, Callable[[list[Any]], Any]] = {
    "None": lambda _: None,
    "too few": lambda items: items[1:],
    "too many": lambda items: [*items, 1],
    "empty": lambda _: [],
    "dict": lambda items: dict.fromkeys(items),
    "OrderedDict": lambda items: OrderedDict.fromkeys(items),
    "dict keys": lambda items: dict.fromkeys(items).keys(),
    "set": set,
    "frozenset": frozenset,
    "str": lambda items: "x" * len(items),
    "bytes": lambda items: b"x" * len(items),
    "bytearray": lambda items: bytearray(len(items)),
    "generator": lambda items: (item for item in items),
    "map": lambda items: map(str, items),
    "int": len,
    "float": lambda items: 1.0,
    "0-d array": lambda _: np.array(3.0),
    "tuple": tuple,
    "columns": lambda items: (items, items),
    "named tuple": lambda items: Columns(items, items),
    "data frame": lambda items: Frame(items),
    "function": lambda _: len,
}

RIGHT: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "deque": deque,
    "range": lambda items: range(items[0], items[-1] + 1),
    "array": lambda items: np.array(items),
    "column": lambda items: np.array(items)[:, None],
}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", WRONG)
async def test_wrong_results(make: Make, gate: Gate, flavour: Flavour, kind: str, size: int) -> None:
    """At every size of the batch all callers get the error, which says what is right; the batcher lives on."""
    wrong = WRONG[kind]

    def result(items: list[Any]) -> Any:
        return items if items == ["good"] else wrong(items)

    gate.result = result
    gate.open()
    batcher = make(gate.function(flavour))

    results = await outcomes(*(batcher.process(n) for n in range(size)))

    assert [type(result) for result in results] == [BatchResultError] * size
    assert all("; return " in str(result) for result in results)
    assert await batcher.process("good") == "good"


@pytest.mark.parametrize("kind", RIGHT)
async def test_right_results(make: Make, gate: Gate, flavour: Flavour, kind: str) -> None:
    """Sequences and arrays are taken element by element."""
    gate.result = RIGHT[kind]
    gate.open()
    batcher = make(gate.function(flavour))

    assert await asyncio.gather(*(batcher.process(n) for n in range(5))) == list(range(5))


async def test_the_function_owns_its_list(make: Make, gate: Gate, flavour: Flavour) -> None:
    """It may clear the items, and keep and change what it returned."""
    kept: list[list[Any]] = []

    def work(items: list[Any]) -> list[Any]:
        results = [-item for item in items]
        items.clear()
        kept.append(results)
        return results

    gate.result = work
    gate.open()
    batcher = make(gate.function(flavour))

    results = await asyncio.gather(*(batcher.process(n) for n in range(5)))
    for batch in kept:
        batch.clear()

    assert results == [0, -1, -2, -3, -4]


async def test_elements_that_are_no_results(make: Make, gate: Gate, flavour: Flavour) -> None:
    """An exception class, or a coroutine that was not awaited, fails its item only."""

    async def forgotten() -> None:
        """Is not awaited."""

    gate.result = lambda items: [ValueError if item == 1 else forgotten() if item == 2 else item for item in items]
    gate.open()
    batcher = make(gate.function(flavour))

    results = await outcomes(*(batcher.process(n) for n in range(4)))

    assert [results[0], results[3]] == [0, 3]
    assert [type(result) for result in results[1:3]] == [BatchResultError] * 2
