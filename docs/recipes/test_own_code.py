"""How to test code that uses a batcher: hold the batch function, so that the test decides what shares a batch."""

import threading
from concurrent.futures import Future

from batchers import Batcher, create_batcher


def greeting_of(batcher: Batcher[str, str], name: str) -> Future[str]:
    """Be the code under test."""
    return batcher.submit(name.title())


def test_two_calls_share_a_batch() -> None:
    sizes = []
    first, go_on = threading.Event(), threading.Event()

    def greet(batch: list[str]) -> list[str]:
        sizes.append(len(batch))
        first.set()
        go_on.wait(10)
        return [f"Hello {name}" for name in batch]

    with create_batcher("threading", greet, max_batch_size=10) as batcher:
        alone = greeting_of(batcher, "ada")
        assert first.wait(10)  # the first batch runs now, so the next two wait for the same one
        together = [greeting_of(batcher, name) for name in ("grace", "barbara")]
        go_on.set()
        assert [future.result(10) for future in (alone, *together)] == [
            "Hello Ada",
            "Hello Grace",
            "Hello Barbara",
        ]
    assert sizes == [1, 2]
