"""The option `length`: items of different lengths, on both backends, with every policy and option beside it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from batchers import Adaptive, Greedy, ItemCostError, OptionError, Policy, Window, create_batcher
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (Greedy(), {}),
        (Greedy(), {"group_by": lambda item: item % 3, "max_batch_cost": 200}),
        (Window(0.001), {"group_by": lambda item: item % 3}),
        (Adaptive(), {"max_batch_cost": 200}),
    ],
)
async def test_everybody_gets_an_answer(
    make: Make, flavour: Flavour, policy: Policy, options: dict[str, Any]
) -> None:
    """Whatever shares a batch with it; items of a batch belong together, and the limits hold."""
    batches: list[list[int]] = []

    def sync(items: list[int]) -> list[int]:
        batches.append(items)
        return [-item for item in items]

    async def soon(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return sync(items)

    function = sync if flavour == "sync" else soon
    made = make(function, policy=policy, length=lambda item: item % 101, max_batch_size=8, **options)
    chance = random.Random(1)
    items = [chance.randrange(1000) for _ in range(300)]
    calls = [made.process(item, priority=chance.choice([0, 0, 1])) for item in items]
    assert await asyncio.gather(*calls) == [-item for item in items]
    assert sorted(item for batch in batches for item in batch) == sorted(items)
    for batch in batches:
        assert len(batch) <= 8
        if "group_by" in options:
            assert len({item % 3 for item in batch}) == 1
        if "max_batch_cost" in options:
            assert len(batch) * max(item % 101 for item in batch) <= 200
    assert 0 <= made.stats().padding < 1


async def test_a_poison_item_among_lengths(make: Make) -> None:
    """Bisect finds it, and the others are served."""

    def process(items: list[int]) -> list[int]:
        if 13 in items:
            msg = "thirteen"
            raise ValueError(msg)
        return items

    made = make(process, length=float, on_error="bisect")
    found = await asyncio.gather(*(made.process(item) for item in range(40)), return_exceptions=True)
    assert [item for item, answer in enumerate(found) if answer != item] == [13]
    assert isinstance(found[13], ValueError)


@pytest.mark.parametrize("length", [-1.0, float("nan"), float("inf"), "long", None])
async def test_impossible_lengths(make: Make, gate: Gate, length: object) -> None:
    """The caller is told, and the others are served."""
    made = make(gate.function("sync"), length=lambda item: length if item == "bad" else 1)
    gate.open()
    with pytest.raises(ItemCostError, match=r"the length of an item must be a finite number.*correct length\(\)"):
        await made.process("bad")
    assert await made.process("good") == "good"


async def test_an_item_that_is_too_long(make: Make, gate: Gate) -> None:
    """It fits into no batch, and its caller is told."""
    made = make(gate.function("sync"), length=len, max_batch_cost=3)
    gate.open()
    with pytest.raises(ItemCostError, match="the item has length 4 and max_batch_cost is 3: split the item"):
        await made.process("long")
    assert await made.process("abc") == "abc"


async def test_an_error_of_the_function(make: Make, gate: Gate) -> None:
    """It is its caller's."""
    made = make(gate.function("sync"), length=len)
    gate.open()
    with pytest.raises(TypeError, match="has no len"):
        await made.process(3)
    assert await made.process("abc") == "abc"


def test_options_that_exclude_each_other(backend: str) -> None:
    """The error says which."""
    with pytest.raises(OptionError, match="give length or cost, not both"):
        create_batcher(backend, list, length=len, cost=len, max_batch_cost=3)
    with pytest.raises(OptionError, match="length must be a function of one item"):
        create_batcher(backend, list, length=3)  # type: ignore[arg-type]


async def test_compiled_sizes_and_lengths(make: Make, gate: Gate) -> None:
    """A batch by length has a compiled size, too, where enough items wait."""
    made = make(gate.function("sync"), length=lambda item: item % 2 * 100 + 5, batch_sizes=(1, 4))
    first = asyncio.create_task(made.process(0))
    await until(lambda: gate.started == 1)
    others = [asyncio.create_task(made.process(item)) for item in range(1, 101)]
    await until(lambda: made.stats().queued == 100)
    gate.open()
    await asyncio.gather(first, *others)
    assert {len(batch) for batch in gate.seen} <= {1, 3, 4}
    assert sorted(item for batch in gate.seen for item in batch) == list(range(101))
    assert made.stats().reasons["length"] + made.stats().reasons["full"] >= 100 // 4 - 2
