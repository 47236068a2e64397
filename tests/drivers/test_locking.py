"""What follows an event may be done by several threads at once."""

from __future__ import annotations

from collections import deque
from typing import Any

from batchers import Batcher, create_batcher
from tests.support.inside import driver_of


class Raced(deque[Any]):
    """A deque that another thread empties after the question whether there is anything in it."""

    asked = 0

    def __bool__(self) -> bool:
        """Say that there is, once."""
        self.asked += 1
        return self.asked == 1


def test_another_thread_is_faster(backend: str) -> None:
    """A caller notices nothing of it: it got an IndexError."""
    batcher: Batcher[int, int] = create_batcher(backend, list)
    with batcher as made:
        driver = driver_of(made)
        raced = driver._released = Raced()
        assert made.call(1) == 1
        driver._planned += 1
        driver._perform(None)
        assert raced.asked > 0
        assert driver._performed == driver._planned
