"""The core beside the plain model: every event goes to both, and everything is compared."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from batchers.core.decisions import Batch, Done, Expire, Run, Wait
from batchers.core.group_queue import QUEUED, RUNNING, SETTLED, Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Failed, Verdict
from batchers.errors import (
    BatcherStoppedError,
    DeadlineExceededError,
    QueueFullError,
)
from batchers.options import Options

from .plain import Limits, Plain

FINAL = ("completed", "failed", "cancelled", "expired", "stopped")


def options_for(limits: Limits) -> Options:
    bounded = limits.cost < inf
    return Options(
        max_batch_size=limits.batch,
        concurrency=limits.slots,
        max_queue_size=limits.queue,
        max_queue_time=limits.window,
        cost=(lambda _: 1.0) if bounded else None,
        max_batch_cost=limits.cost if bounded else None,
        on_error="bisect" if limits.bisect else "fail",
        cancel_abandoned=limits.cancel,
    )


class World:
    """Both, after the same events. Each step ends when both have nothing more to do at this time."""

    def __init__(self, limits: Limits) -> None:
        self.plain = Plain(limits)
        self.core: Core[int, int] = Core(options_for(limits))
        self.requests: dict[int, Request[int]] = {}
        self.batches: list[Batch[int]] = []
        self.outcomes: dict[int, object] = {}
        self.ran: list[int] = []
        self.known = False  # whether this step was compared before, in another world

    # Events; each returns False when it cannot happen now.

    def offer(self, group: str = "a", priority: int = 0, cost: float = 0.0, timeout: float = inf) -> bool:
        number = self.plain.accepted + 1
        said = self.plain.offer(group, priority, cost, timeout)
        now = self.plain.now
        request = Request(number, group, priority, cost, now + timeout)
        due = self.core.due
        try:
            sooner = self.core.offer((request,), now)
        except BatcherStoppedError:
            assert said == "stopped"
        except QueueFullError as error:
            assert said == "full"
            assert 0.001 <= error.retry_after <= 60  # noqa: PT017 - the event may be refused or not
        else:
            assert said == "accepted"
            assert sooner or self.core.due >= due
            self.requests[number] = request
        return self.settle()

    def withdraw_waiting(self, place: int) -> bool:
        if not self.plain.waiting:
            return False
        item = self.plain.waiting[place]
        self.plain.withdraw(item)
        assert self.core.withdraw(self.requests[item.number])
        assert not self.core.withdraw(self.requests[item.number])
        self.end(item.number, "cancelled")
        return self.settle()

    def withdraw_running(self) -> bool:
        live = [i for batch in self.plain.running + self.plain.divided for i in self.plain.live(batch)]
        if not live:
            return False
        self.plain.withdraw(live[0])
        assert self.core.withdraw(self.requests[live[0].number])
        self.end(live[0].number, "cancelled")
        return self.settle()

    def finish(self, place: int, ok: bool) -> bool:
        if not self.batches:
            return False
        expected = self.plain.finish(place, ok)
        batch = self.batches.pop(place)
        verdict: Verdict[int] = [10 * item for item in batch.items] if ok else Failed(ValueError("no"))
        settled = list(self.core.finish(batch, verdict, self.plain.now))
        assert [self.number(request) for request, _ in settled] == expected
        for request, outcome in settled:
            number = self.number(request)
            if ok:
                assert outcome == 10 * number
            else:
                assert isinstance(outcome, Err)
                assert isinstance(outcome.error, ValueError)
            self.end(number, outcome)
        assert list(self.core.finish(batch, verdict, self.plain.now)) == []
        return self.settle()

    def tick(self) -> bool:
        if self.plain.next_change() == inf:
            return False
        self.plain.now += 1
        return self.settle()

    def close(self, force: bool = False, abandon: bool = False) -> bool:
        expected = self.plain.close(force, abandon)
        settled = list(self.core.abandon() if abandon else self.core.close(force=force))
        assert {self.number(request) for request, _ in settled} == expected
        for request, outcome in settled:
            assert isinstance(outcome, Err)
            assert isinstance(outcome.error, BatcherStoppedError)
            self.end(self.number(request), outcome)
        if abandon:
            self.batches = []
        return self.settle()

    def reconfigure(self, batch: int, slots: int, queue: int, window: float | None) -> bool:
        limits = replace(self.plain.limits, batch=batch, slots=slots, queue=queue, window=window)
        self.plain.limits = limits
        assert list(self.core.reconfigure(options_for(limits))) == []
        return self.settle()

    # Comparison

    def number(self, request: Request[int]) -> int:
        return request.number

    def end(self, number: int, outcome: object) -> None:
        assert number not in self.outcomes
        self.outcomes[number] = outcome

    def settle(self) -> bool:
        """Carry out all decisions of this time on both sides."""
        while True:
            due = self.core.due
            assert self.core.inconsistent is False
            expected, what = self.plain.decide()
            decision = self.core.decide(self.plain.now)
            assert self.core.inconsistent is False
            assert self.core._in_transition == []
            if isinstance(decision, Run):
                numbers = [self.number(request) for request in decision.batch.requests]
                assert ("run", numbers) == (expected, what)
                assert decision.batch.items == numbers
                decision.batch.begun = True  # as a driver does
                self.batches.append(decision.batch)
                self.ran += numbers
            elif isinstance(decision, Expire):
                settled = list(decision.settled)
                assert (expected, {self.number(request) for request, _ in settled}) == ("expire", what)
                if decision.batch is not None:
                    assert settled == []
                    assert all(request.state == SETTLED for request in decision.batch.requests)
                    assert decision.batch.abandoned
                    decision.batch.cancelled = True  # as a driver does whose task runs it
                for request, outcome in settled:
                    assert isinstance(outcome, Err)
                    assert isinstance(outcome.error, DeadlineExceededError)
                    self.end(self.number(request), outcome)
            else:
                assert (expected, type(decision)) in (("wait", Wait), ("done", Done))
                if isinstance(decision, Wait):
                    assert decision.until == self.core.due == self.plain.next_change()
                    assert decision.until > self.plain.now
                else:
                    assert self.core.done
                if not self.known:
                    self.check()
                return True
            assert due <= self.plain.now, "it had something to say before it was due"

    def check(self) -> None:
        plain, stats = self.plain, self.core.stats()
        for what in FINAL:
            assert getattr(stats, what) == plain.counts.get(what, 0), what
        assert stats.rejected == plain.counts.get("rejected", 0)
        assert stats.queued == len(plain.waiting)
        assert stats.running == len(plain.alive)
        assert stats.batches_in_flight == len(plain.running)
        assert stats.submitted == sum(
            (*(getattr(stats, what) for what in FINAL), stats.rejected, stats.queued, stats.running)
        )
        for number, request in self.requests.items():
            if number in self.outcomes:
                assert request.state == SETTLED
            else:
                assert request.state == (RUNNING if number in plain.alive else QUEUED)
