"""Work per item must not grow with the queue. Counted in steps of the interpreter, not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from random import Random

import pytest

from batchers.core.decisions import Expire, Run
from batchers.core.group_queue import Request
from batchers.core.indexed_heap import IndexedHeap
from batchers.core.machine import Core
from batchers.options import Options


def steps(work: Callable[[], object]) -> int:
    """Return how many lines of Python ran."""
    counted = 0

    def trace(*_: object) -> object:
        nonlocal counted
        counted += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]  # a trace function may take anything
    try:
        work()
    finally:
        sys.settrace(before)
    return counted


def serve(core: Core[int, int]) -> None:
    """Run everything that waits."""
    while isinstance(decision := core.decide(0.0), (Run, Expire)):
        if isinstance(decision, Run):
            core.finish(decision.batch, list(decision.batch.items), 0.0)


def lifetime(count: int, cancelled: float, groups: int, priorities: int, deadlines: int) -> float:
    """Return the steps per item for a queue that is filled, thinned and served."""
    random = Random(1)
    core: Core[int, int] = Core(Options(max_batch_size=16, max_queue_size=-1))
    requests = [
        Request(n, n % groups, n % priorities, 0.0, 1.0 + n % deadlines if deadlines else inf)
        for n in range(count)
    ]
    leaving = random.sample(requests, int(cancelled * count))

    def work() -> None:
        core.offer(requests, 0.0)
        for request in leaving:
            core.withdraw(request)
        serve(core)

    return steps(work) / count


@pytest.mark.parametrize("cancelled", [0.0, 0.5, 0.99])
def test_flat_in_the_queue(cancelled: float) -> None:
    """A hundred times the queue, the same work for each item; plain dicts and lists fail here."""
    small, large = lifetime(200, cancelled, 1, 1, 0), lifetime(20_000, cancelled, 1, 1, 0)

    assert large < 1.2 * small + 5


@pytest.mark.parametrize(
    ("groups", "priorities", "deadlines"), [(2000, 1, 0), (1, 2000, 0), (1, 1, 2000), (100, 100, 100)]
)
def test_at_most_logarithmic_in_kinds(groups: int, priorities: int, deadlines: int) -> None:
    """Thousands of groups, priorities or deadlines cost a small factor, not a thousand."""
    few = lifetime(4000, 0.3, min(groups, 2), min(priorities, 2), min(deadlines, 2))
    many = lifetime(4000, 0.3, groups, priorities, deadlines)

    assert many < 8 * few


def test_order_follows_its_members() -> None:
    """Re-keyed and removed members leave no memory behind."""
    order: IndexedHeap[int] = IndexedHeap()
    for member in range(10):
        order.put(member, member)
    assert order.first() == 0
    for key in range(10_000):
        order.put(key % 10, -key)
        order.first()
    assert order._heap is not None
    assert len(order._heap) <= 2 * 10 + 17
    for member in range(1, 10):
        order.discard(member)
    assert order.first() == 0
    order.discard(0)
    assert len(order.keys) == 0
    with pytest.raises(IndexError):
        order.first()


def test_equal_keys_are_no_problem() -> None:
    """Members are never compared with each other."""
    order: IndexedHeap[object] = IndexedHeap()
    members = [object() for _ in range(20)]
    for member in members:
        order.put(member, 1)

    found = []
    while len(order.keys):
        found.append(order.first())
        order.discard(found[-1])

    assert set(found) == set(members)
