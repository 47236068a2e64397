"""An exception at any line of any event: the core is repaired, and every request has one outcome."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from math import inf
from types import FrameType
from typing import Any

import pytest

import batchers.core
from batchers.core.decisions import Batch, Done, Expire, Run, Settled, Wait
from batchers.core.group_queue import SETTLED, Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Failed
from batchers.options import Changes, Options
from batchers.policies.adaptive import Adaptive

from .steps import Fickle

FOLDER = batchers.core.__path__[0]


class Interrupt(BaseException):
    """What a signal handler raises."""


class Striker:
    """It raises an exception at one line of the core, counted from the beginning of an event."""

    def __init__(self, line: int, error: type[BaseException] = Interrupt) -> None:
        self.left = line
        self.error = error
        self.struck = False

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0 and not self.struck:
                self.struck = True
                raise self.error
        return self._trace


class Driven:
    """A core, and what a driver has of it: requests with their outcomes, and batches that run."""

    def __init__(self, **options: Any) -> None:
        self.core: Core[int, int] = Core(Options(**options))
        self.outcomes: dict[int, object] = {}
        self.left: set[int] = set()
        self.requests: list[Request[int]] = []
        self.batches: list[Batch[int]] = []
        self.ran: list[int] = []
        self.begun: list[Request[int]] = []
        self.now = 0.0

    def settle(self, settled: Settled[int, int]) -> None:
        """Deliver, perhaps again."""
        for request, outcome in settled:
            if id(request) in self.outcomes:
                first = self.outcomes[id(request)]
                assert first == outcome or isinstance(outcome, Err)
            else:
                self.outcomes[id(request)] = outcome

    def offer(self, *requests: Request[int]) -> None:
        """Be the callers of these requests; an interrupted one leaves."""
        self.requests += requests
        try:
            self.core.offer(requests, self.now)
        except Interrupt:
            self.left |= {id(request) for request in requests}
            self.repair()
            for request in requests:
                if hasattr(request, "number"):
                    self.core.withdraw(request)
                    request.state = SETTLED  # for `end`: nobody has it any more
            raise

    def withdraw(self, request: Request[int]) -> None:
        """Be the caller of a request, who leaves."""
        self.left.add(id(request))
        self.core.withdraw(request)

    def decide(self) -> None:
        """Take one decision."""
        try:
            decision = self.core.decide(self.now)
        except Interrupt:
            self.core.inconsistent = True
            raise
        if isinstance(decision, Run):
            decision.batch.begun = True
            self.batches.append(decision.batch)
            self.ran += decision.batch.items
            self.begun += decision.batch.requests
        elif isinstance(decision, Expire):
            self.settle(decision.settled)
            if decision.batch is not None:
                decision.batch.interrupted = decision.batch.cancelled = True

    def finish(self, batch: Batch[int], *, well: bool = True) -> None:
        """End a batch; after an interrupt report it once more."""
        verdict: Any = list(batch.items) if well else Failed(ValueError())
        try:
            settled = self.core.finish(batch, verdict, self.now)
        except Interrupt:
            self.core.inconsistent = True
            self.repair()
            self.settle(self.core.finish(batch, verdict, self.now))
            raise
        finally:
            self.batches.remove(batch)
        self.settle(settled)

    def repair(self) -> None:
        """Do what the next event does first."""
        if self.core.inconsistent:
            self.settle(self.core.repair())
            self.core.inconsistent = False

    def end(self) -> None:
        """Serve all, and check that each request has its outcome."""
        core = self.core
        for _ in range(100):
            self.repair()
            self.now += 1.0
            decision_due = core.due
            if decision_due <= self.now:
                self.decide()
            for batch in list(self.batches):
                self.finish(batch)
            if core.idle:
                break
        assert core.idle
        again = core._bisect  # bisected batches run again
        assert again or len({id(request) for request in self.begun}) == len(self.begun)
        for request in self.requests:
            assert id(request) in self.outcomes or id(request) in self.left
            assert request.state == SETTLED or not hasattr(request, "number")
        stats = core.stats()
        ended = stats.completed + stats.failed + stats.cancelled + stats.expired + stats.stopped
        assert stats.submitted == ended
        assert (stats.queued, stats.running) == (0, 0)
        results = [outcome for outcome in self.outcomes.values() if not isinstance(outcome, Err)]
        assert len(results) <= stats.completed + stats.cancelled
        assert isinstance(core.decide(self.now), Done if core.closed else Wait)


def two_groups() -> Driven:
    """Return one with two batches in flight, and items that wait, of two groups and priorities."""
    driven = Driven(max_batch_size=3, concurrency=2, group_by=str, on_error="bisect", batch_timeout=5.0)
    driven.offer(*(Request(n, n % 2, n % 3, 0.0, 50.0 if n % 4 else inf) for n in range(20)))
    driven.decide()
    driven.decide()
    return driven


def learning() -> Driven:
    """Return one whose policy and concurrency learn."""
    driven = Driven(max_batch_size=3, concurrency="auto", policy=Adaptive(), timeout=60.0)
    for _ in range(30):
        driven.offer(*(Request(n, deadline=driven.now + 60.0) for n in range(3)))
        driven.decide()
        driven.now += 0.1
        driven.finish(driven.batches[0])
    driven.offer(*(Request(n, deadline=driven.now + 60.0) for n in range(7)))
    driven.decide()
    return driven


def leaving() -> Driven:
    """Return one with two batches in flight, which are cancelled when the last caller leaves; some have left."""
    driven = Driven(max_batch_size=2, concurrency=2, batch_timeout=5.0, cancel_abandoned=True)
    driven.offer(*(Request(n, deadline=50.0) for n in range(6)))
    driven.decide()
    driven.decide()
    for batch in driven.batches:
        driven.withdraw(batch.requests[0])
    return driven


def some_expire() -> Driven:
    """Return one with two batches in flight, of which one item will expire."""
    driven = Driven(max_batch_size=2, concurrency=2)
    driven.offer(*(Request(n, deadline=inf if n % 2 else 50.0) for n in range(6)))
    driven.decide()
    driven.decide()
    return driven


def leave(driven: Driven) -> None:
    """Be the last caller of a batch, who leaves; take the decision on it."""
    driven.withdraw(driven.batches[-1].requests[-1])
    driven.decide()


def stop(driven: Driven, event: Callable[[], Settled[int, int]]) -> None:
    """Stop by force, or without patience."""
    try:
        settled = event()
    except Interrupt:
        driven.core.inconsistent = True
        raise
    driven.settle(settled)


def close(driven: Driven) -> None:
    """Stop by force."""
    stop(driven, partial(driven.core.close, force=True))


def abandon(driven: Driven) -> None:
    """Stop without patience."""
    stop(driven, driven.core.abandon)
    driven.batches.clear()


def expire(driven: Driven) -> None:
    """Let the deadlines pass."""
    driven.now = 100.0
    driven.decide()


def hang(driven: Driven) -> None:
    """Let the first batch take too long."""
    driven.now = 6.0
    driven.decide()


def finish_and_start(driven: Driven, *, well: bool = True) -> None:
    """End a batch, and take the next decision."""
    driven.finish(driven.batches[0], well=well)
    driven.decide()


def reconfigure(driven: Driven) -> None:
    """Change all limits; then none is of the old ones while others are of the new ones."""
    changes: Changes = {"max_batch_size": 2, "concurrency": 1, "max_queue_size": 50, "batch_timeout": 7.0}
    core = driven.core
    try:
        settled = core.reconfigure(core.options.changed(changes))
    except Interrupt:
        sys.settrace(None)
        driven.repair()
        raise
    finally:
        assert core.queue_limit == core.options.queue_limit
        assert core.slots == core.options.slots or core.options.concurrency == "auto"
        assert core._batch_timeout == (core.options.batch_timeout or inf)
    driven.settle(settled)


EVENTS: dict[str, Callable[[Driven], object]] = {
    "offer": lambda driven: driven.offer(Request(100, 5), Request(101, 1, 7, deadline=70.0)),
    "offer one": lambda driven: driven.offer(Request(100, 1)),
    "withdraw": lambda driven: driven.withdraw(driven.requests[-1]),
    "withdraw running": lambda driven: driven.withdraw(driven.batches[0].requests[-1]),
    "leave": leave,
    "finish": lambda driven: driven.finish(driven.batches[0]),
    "fail": lambda driven: driven.finish(driven.batches[0], well=False),
    "start": finish_and_start,
    "start a half": partial(finish_and_start, well=False),
    "expire": expire,
    "hang": hang,
    "close": close,
    "abandon": abandon,
    "reconfigure": reconfigure,
}


@pytest.mark.parametrize("make", [two_groups, learning, leaving, some_expire])
@pytest.mark.parametrize("event", EVENTS)
def test_an_exception_at_any_line(event: str, make: Callable[[], Driven]) -> None:
    """Whatever line it strikes, the caller of the event fails alone."""
    for line in range(2000):
        driven = make()
        striker = Striker(line)
        try:
            with striker:
                EVENTS[event](driven)
        except Interrupt:
            pass
        if event in {"close", "abandon"} and striker.struck:
            driven.repair()
            EVENTS[event](driven)
        driven.end()
        if not striker.struck:
            break
    assert line > 5


@pytest.mark.parametrize("make", [two_groups, some_expire])
@pytest.mark.parametrize("error", [Interrupt, RecursionError, MemoryError])
def test_an_exception_at_any_line_of_the_repair(error: type[BaseException], make: Callable[[], Driven]) -> None:
    """The next repair finds all requests, and those whose group cannot be compared any more have their error."""
    for line in range(2000):
        driven = make()
        group = Fickle()
        driven.offer(Request(100, group))
        fickle = driven.requests[-1]
        group.broken = True
        driven.core.inconsistent = True
        striker = Striker(line, error)
        try:
            with striker:
                driven.repair()
        except error:
            driven.repair()
        outcome = driven.outcomes[id(fickle)]
        assert isinstance(outcome, Err)
        assert "no hash any more" in str(outcome.error)
        driven.end()
        if not striker.struck:
            break
    assert line > 50


def test_the_last_caller_leaves_at_any_line() -> None:
    """The decision to cancel the batch is lost by no exception."""
    for line in range(2000):
        driven = leaving()
        batch = driven.batches[-1]
        striker = Striker(line)
        try:
            with striker:
                leave(driven)
        except Interrupt:
            driven.core.withdraw(batch.requests[-1])  # its caller tries again
            driven.repair()
            driven.decide()
        assert batch.cancelled
        assert driven.core.due > driven.now
        driven.end()
        if not striker.struck:
            break
    assert line > 5


def test_a_group_that_cannot_be_compared_any_more() -> None:
    """Its request fails with the error of the comparison, and the others are served."""
    driven = Driven(max_batch_size=1)
    group = Fickle()
    driven.offer(Request(1), Request(2, group), Request(3))
    group.broken = True
    driven.core.inconsistent = True
    driven.repair()
    outcome = driven.outcomes[id(driven.requests[1])]
    assert isinstance(outcome, Err)
    assert str(outcome.error) == "no hash any more"
    driven.end()
    assert driven.ran == [1, 3]


def test_the_order_is_kept() -> None:
    """A batch that the driver never got is dissolved, and its items go first again."""
    driven = Driven(max_batch_size=2)
    driven.offer(*(Request(n) for n in range(5)))
    decision = driven.core.decide(0.0)
    assert isinstance(decision, Run)
    driven.core.inconsistent = True
    driven.repair()
    assert driven.core.stats().queued == 5
    driven.end()
    assert driven.ran == [0, 1, 2, 3, 4]
