"""Members in the order of keys that change, and how much is kept of old ones."""

from __future__ import annotations

import pytest

from batchers.core.indexed_heap import IndexedHeap


def entries(order: IndexedHeap[int]) -> int:
    """Return how many the heap has, stale ones too."""
    return len(order._heap or ())


def test_order() -> None:
    """The smallest key is first, whatever came and went before."""
    order: IndexedHeap[str] = IndexedHeap()
    with pytest.raises(IndexError):
        order.first()
    order.put("a", 3)
    assert (order.first(), order.first_key(), len(order.keys)) == ("a", 3, 1)
    order.put("b", 1)
    assert (order.first(), order.first_key()) == ("b", 1)
    order.put("b", 5)
    assert order.first() == "a"
    order.put("a", 7)
    assert order.first() == "b"
    order.discard("b")
    order.discard("nobody")
    assert (order.first(), len(order.keys)) == ("a", 1)
    order.discard("a")
    assert len(order.keys) == 0
    order.put("c", 2)
    order.put("d", 1)
    assert order.first() == "d"


def test_a_key_that_stays_is_no_change() -> None:
    """It leaves no second entry."""
    order: IndexedHeap[int] = IndexedHeap()
    for member in range(3):
        order.put(member, member)
    assert order.first() == 0
    for _ in range(100):
        order.put(2, 2)
    assert entries(order) == 3


def test_stale_entries() -> None:
    """The heap is dropped when they are the majority by more than sixteen, and built anew when it is asked."""
    order: IndexedHeap[int] = IndexedHeap()
    order.put(0, 0)
    order.put(1, 1)
    assert order.first() == 0
    for key in range(2, 20):
        order.put(1, key)
    assert entries(order) == 20
    order.put(1, 20)
    assert entries(order) == 0
    assert order.first() == 0
    assert entries(order) == 2


def test_a_burst_gives_its_memory_back() -> None:
    """When the last member has gone, so has the room for all."""
    order: IndexedHeap[int] = IndexedHeap()
    for member in range(10_000):
        order.put(member, member)
    assert order.first() == 0
    for member in range(9_999):
        order.discard(member)
        assert order.first() == member + 1
    order.discard(9_999)
    assert entries(order) < 20
    assert order.keys.__sizeof__() < dict.fromkeys(range(40)).__sizeof__()
