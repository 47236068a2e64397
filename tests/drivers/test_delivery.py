"""What both backends share to resolve futures, without any batcher."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import sys
import threading
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from batchers.core.group_queue import Request
from batchers.drivers import delivery, futures
from batchers.drivers.delivery import GatheredResults, deliver
from batchers.drivers.futures import SharedFuture
from tests.support.children import PATIENCE


def requests(callback: Callable[[object], object]) -> list[Request[int]]:
    """Return three, the first one with a callback on its future."""
    futures: list[SharedFuture[int]] = [SharedFuture() for _ in range(3)]
    futures[0].add_done_callback(callback)
    return [Request(0, future=future) for future in futures]


def interrupt(_: object) -> None:
    """Be what a signal handler does at any moment."""
    raise KeyboardInterrupt


def test_an_interrupt_of_the_main_thread_is_not_lost() -> None:
    """It is raised when all have their results."""
    found = requests(interrupt)
    with pytest.raises(KeyboardInterrupt):
        deliver([(request, number) for number, request in enumerate(found)], None)

    assert [request.future.result() for request in found] == [0, 1, 2]  # type: ignore[attr-defined]


def test_in_another_thread_it_is_no_interrupt(caplog: pytest.LogCaptureFixture) -> None:
    """There it comes out of a callback: it is logged, and the thread lives."""
    found = requests(interrupt)
    thread = threading.Thread(
        target=deliver, args=([(request, number) for number, request in enumerate(found)], None)
    )
    thread.start()
    thread.join()

    assert [request.future.result() for request in found] == [0, 1, 2]  # type: ignore[attr-defined]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def interrupted_once(error: type[BaseException]) -> list[Request[int]]:
    """Return three requests; setting the result of the first one is interrupted, the first time."""
    found = requests(lambda _: None)
    first: SharedFuture[int] = found[0].future  # type: ignore[assignment]
    original = first.set_result
    calls: list[int] = []

    def interrupted(result: int) -> None:
        calls.append(result)
        if len(calls) == 1:
            raise error
        original(result)

    first.set_result = interrupted  # type: ignore[method-assign]
    return found


def test_an_interrupt_between_claim_and_result() -> None:
    """The future is claimed already; its thread gets the result, and so do those after it."""
    found = interrupted_once(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        deliver([(request, number) for number, request in enumerate(found)], None)

    assert [request.future.result(0) for request in found] == [0, 1, 2]  # type: ignore[attr-defined]


def test_a_signal_handler_that_raises_an_ordinary_error(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged as what it may be, the error of a callback, and nobody is left out."""
    found = interrupted_once(TimeoutError)
    deliver([(request, number) for number, request in enumerate(found)], None)

    assert [request.future.result(0) for request in found] == [0, 1, 2]  # type: ignore[attr-defined]
    assert len(caplog.records) == 1


async def test_a_share_that_is_settled_twice() -> None:
    """As after an interrupt right behind it: the group still waits for the others."""
    group = GatheredResults(asyncio.get_running_loop())
    first, second = group.slot(), group.slot()
    first.set_result(1)
    first.set_result(1)
    assert not group.future.done()
    second.set_result(2)
    assert await group.future == [1, 2]


def test_a_future_that_cannot_be_settled(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried twice, and the others get theirs."""
    strange: SharedFuture[int] = SharedFuture()
    other: SharedFuture[int] = SharedFuture()
    strange._state = "none of the five"
    deliver([(Request(0, future=strange), 0), (Request(1, future=other), 1)], None)

    assert other.result(0) == 1
    assert [record.name for record in caplog.records].count("batchers") == 2


def test_to_deliver_again_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    """Also on a future that was cancelled, whose waiters may be notified once only."""
    cancelled, answered = SharedFuture[int](), SharedFuture[int]()
    cancelled.cancel()
    called: list[object] = []
    answered.add_done_callback(called.append)
    for outcome in (0, 1):
        deliver([(Request(0, future=cancelled), outcome), (Request(1, future=answered), outcome)], None)

    assert cancelled.cancelled()
    assert answered.result(0) == 0
    assert called == [answered]
    assert not caplog.records


def test_a_strike_at_any_line_of_a_delivery() -> None:
    """As when a worker is ended from outside: the future has its outcome, and nobody holds its lock.

    Its callback runs once, if the strike is not at the callback itself.
    """
    files = {
        sys.modules[name].__file__
        for name in (delivery.__name__, futures.__name__, concurrent.futures.Future.__module__, "threading")
    }
    for line in range(1000):
        future: SharedFuture[str] = SharedFuture()
        called: list[object] = []
        future.add_done_callback(called.append)
        waiter: Any = SimpleNamespace(finished_futures=[])  # as `concurrent.futures.wait` installs one
        waiter.add_result = waiter.finished_futures.append
        future._waiters.append(waiter)
        waits = threading.Thread(target=future.result, daemon=True)
        waits.start()
        request: Request[int] = Request(1, future=future)
        left = [line]
        struck_in: list[str] = []

        def strike(
            frame: FrameType, event: str, _: object, left: list[int] = left, struck_in: list[str] = struck_in
        ) -> Any:
            if frame.f_code.co_filename not in files:
                return None
            if event == "line" and frame.f_code.co_name != "_resolve":
                left[0] -= 1
                if left[0] == -1:
                    struck_in.append(frame.f_code.co_name)
                    raise SystemExit
            return strike

        def struck(pair: delivery.Pair, strike: Any = strike) -> None:
            sys.settrace(strike)
            delivery._resolve([pair])
            sys.settrace(None)

        thread = threading.Thread(target=struck, args=((request, "answer"),))
        thread.start()
        thread.join()
        waits.join(PATIENCE)
        assert not waits.is_alive()
        assert waiter.finished_futures == [future]
        assert future._condition.acquire(timeout=0), line
        future._condition.release()
        assert future.result(0) == "answer"
        assert called == [future] or struck_in == ["_invoke_callbacks"], line
        assert len(called) <= 1
        if left[0] >= 0:
            break
    assert line > 20
