"""Executors that break, and factories that make new ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from batchers import BatchFunctionError, OptionError, create_batcher
from batchers.drivers.pools import Pool


class Fragile(Executor):
    """An executor that breaks when it is told to."""

    made: list[Fragile]

    def __init__(self) -> None:
        self.made.append(self)
        self.broken = False
        self.down = False

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it, or break."""
        if self.broken:
            msg = "broken before"
            raise BrokenExecutor(msg)
        future: Future[Any] = Future()
        if args[-1] == ["break"]:
            self.broken = True
            future.set_exception(BrokenExecutor("a process has ended"))
        else:
            future.set_result(function(*args, **kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Note it."""
        self.down = True


@pytest.fixture
def made() -> Iterator[list[Fragile]]:
    """Give the executors that were made."""
    Fragile.made = []
    yield Fragile.made
    Fragile.made = []


def double(items: list[Any]) -> list[Any]:
    return [2 * item for item in items]


def run(pool: Pool, item: object) -> Any:
    return pool.send((os.getpid(), -1), double, [item])()


def test_a_pool_that_breaks_is_made_anew(made: list[Fragile]) -> None:
    """At once after results; and then after 1, 2, 4 and up to 60 seconds, while batches fail."""
    now = [0.0]
    pool = Pool(Fragile, lambda: now[0])
    assert made == []
    assert run(pool, 1) == [2]
    with pytest.raises(BatchFunctionError, match=r"the pool broke while it ran the batch \(a process has ended\)"):
        run(pool, "break")
    for thread in pool.threads:
        thread.ended.result()
    assert made[0].down
    waits = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    for wait in waits:
        if wait:
            now[0] += wait - 0.5
            with pytest.raises(BatchFunctionError, match=r"the next one is made in 0\.5 s"):
                run(pool, 1)
            now[0] += 0.5
        with pytest.raises(BatchFunctionError, match="the next batch gets another pool"):
            run(pool, "break")
    assert len(made) == len(waits) + 1
    now[0] += 60.0
    assert run(pool, 3) == [6]
    with pytest.raises(BatchFunctionError):
        run(pool, "break")
    assert run(pool, 3) == [6]
    assert pool.broken is None
    pool.close()
    for thread in pool.threads:
        thread.ended.result()
    assert made[-1].down
    with pytest.raises(BatchFunctionError, match="shut down, because the batcher was stopped"):
        run(pool, 1)


def test_a_factory_that_fails(made: list[Fragile]) -> None:
    """Its error is that of the batch, and the next try comes later; what it returns must be an executor."""
    now = [0.0]

    def fail() -> Executor:
        raise OSError(11, "no processes")

    pool = Pool(fail, lambda: now[0])
    with pytest.raises(OSError, match="no processes"):
        run(pool, 1)
    with pytest.raises(BatchFunctionError, match=r"the next one is made in 1\.0 s"):
        run(pool, 1)
    with pytest.raises(BatchFunctionError, match=r"must return a concurrent\.futures\.Executor, not 5"):
        run(Pool(lambda: 5, lambda: now[0]), 1)  # type: ignore[arg-type, return-value]


def exit_for(items: list[Any]) -> list[Any]:
    """End the process for an item."""
    if "exit" in items:
        os._exit(3)
    return items


class Picky(Exception):
    """It does not survive pickling."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


def pick(items: list[Any]) -> list[Any]:
    """Raise it, or return it."""
    if "raise" in items:
        raise Picky(code=3)
    return [Picky(code=4) if item == "return" else item for item in items]


def test_a_process_that_is_killed(backend: str) -> None:
    """The pool of a factory is replaced. One that the user made makes the batcher unhealthy; errors name it."""
    with create_batcher(backend, exit_for, executor=lambda: ProcessPoolExecutor(1)) as batcher:
        assert batcher.call(1) == 1
        with pytest.raises(BatchFunctionError, match="the next batch gets another pool"):
            batcher.call("exit")
        assert batcher.call(2) == 2
        assert batcher.healthy
    with ProcessPoolExecutor(1) as executor, create_batcher(backend, exit_for, executor=executor) as batcher:
        assert batcher.call(1) == 1
        for item in ("exit", 2):
            with pytest.raises(BatchFunctionError, match="the executor of this batcher is broken"):
                batcher.call(item)
        assert not batcher.healthy


def test_exceptions_that_cannot_be_pickled(backend: str) -> None:
    """Raised, or returned for one item: they arrive in words, and the pool lives."""
    with create_batcher(backend, pick, executor=lambda: ProcessPoolExecutor(1)) as batcher:
        for item, text in (("raise", "code 3"), ("return", "code 4")):
            with pytest.raises(
                BatchFunctionError, match=f"raised Picky, which cannot be pickled for another process: {text}"
            ):
                batcher.call(item)
        assert batcher.call(1) == 1


def test_a_class_is_a_factory(backend: str) -> None:
    """And what is neither an executor nor callable is refused."""
    with create_batcher(backend, double, executor=ThreadPoolExecutor) as batcher:
        assert batcher.call(2) == 4
    with pytest.raises(OptionError, match="a function that makes one, or None"):
        create_batcher(backend, double, executor=5)  # type: ignore[arg-type]
