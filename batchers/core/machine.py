"""Pure: the state machine that decides everything. It knows no thread, no loop, no clock.

Theory of operation
===================

Events go in, with the time as an argument where it matters:

    offer      callers hand in items        -> accepted, or an error is raised and nothing has changed
    withdraw   a caller leaves              -> its item never runs, or its result will be dropped
    finish     a batch has ended            -> who gets which outcome
    close      no more items                -> with force: who gets which error
    abandon    do not wait any longer       -> the same, for running items as well

Decisions come out of `decide(now)`, which a driver asks until it says Wait or Done:

    Run(batch)      call process_batch with these items and report the end with `finish`
    Expire(...)     tell these callers that their time is over, or their batch's
    Wait(until)     nothing to do before that time, unless an event comes first
    Done            closed, and nothing is queued or running; it stays so

`due` is the earliest time at which `decide` would say something else than Wait: `-inf` means now, `inf`
means not before the next event. A driver that keeps the `until` of its last Wait knows after each
event, by one comparison, whether somebody has to be woken.

Four rules hold between any two events, and the tests check them after every one:

1. A request is in one state: QUEUED, RUNNING or SETTLED, and only moves forward. It is settled once,
   by the event or decision that names its outcome; that is where it is counted, and where its item is
   let go. So every accepted item gets exactly one outcome, however events interleave.
2. Batches are formed when a slot is free to run them, never before (late binding): until then they
   grow, and a withdrawn item leaves no hole.
3. Which group goes is decided by `groups`: no full batch waits while a slot is free, and none is held
   longer than the policy says for its oldest item.
4. A divided batch (`on_error="bisect"`) keeps its requests RUNNING; its halves go before all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NoReturn, TypeVar

from batchers.errors import BatcherStoppedError, BatchTimeoutError, DeadlineExceededError
from batchers.policies.base import Reason

from . import messages
from .admission import STALLED_LIMIT, late_refusal, refusal
from .decisions import Batch, Decision, Done, Expire, Run, Settled, Wait
from .group_queue import RUNNING, SETTLED, GroupQueue, Request
from .outcomes import Err, Failed, Verdict
from .state import Ended, State

T = TypeVar("T")
S = TypeVar("S")


class Core(State[T, S]):
    """The events and the decisions of one batcher. Not thread-safe: the drivers hold a lock."""

    __slots__ = ()

    # Events

    def offer(self, requests: Sequence[Request[T]], now: float) -> bool:
        """Accept all requests, or raise and change nothing. Return whether `due` may be earlier now.

        Raises BatcherStoppedError, QueueFullError, DeadlineExceededError, OptionError for more than can ever fit,
        and what groups raise when they are compared.
        """
        count = len(requests)
        if self.closed or self.queued + count > self._queue_limit or len(self._stalled) >= STALLED_LIMIT:
            self._refuse(count)
        if self._rule.learns:
            self._refuse_late(requests, now)
        self._groups.admit(requests)  # first of all, because it may raise what a user's groups raise
        self.inconsistent = True
        for request in requests:
            self._enqueue(request, now)
        self.inconsistent = False
        return self._watches

    def offer_one(self, request: Request[T], now: float) -> bool:
        """Do what `offer` does, for one request, in less time."""
        if self.closed or self.queued >= self._queue_limit or len(self._stalled) >= STALLED_LIMIT:
            self._refuse(1)
        if self._rule.learns:
            self._refuse_late((request,), now)
        self._groups.admit_one(request)
        self.inconsistent = True
        # As `_enqueue` and `_watches`: two calls less for each item.
        self._last_event_time = request.arrived = now
        self.accepted = request.number = self.accepted + 1
        queue = request.level.queue
        if queue.add(request):
            self._groups.rank(queue)
        if request.deadline < inf:
            self._deadlines.put(request, (request.deadline, request.number))
        self.queued += 1
        self.inconsistent = False
        return len(self._in_flight) < self.slots or bool(self._deadlines.keys) or self._batch_timeout < inf

    def _enqueue(self, request: Request[T], now: float) -> None:
        """Put a request into its queue."""
        self._last_event_time = request.arrived = now
        self.accepted = request.number = self.accepted + 1
        queue = request.level.queue
        if queue.add(request):
            self._groups.rank(queue)
        if request.deadline < inf:
            self._deadlines.put(request, (request.deadline, request.number))
        self.queued += 1

    @property
    def _watches(self) -> bool:
        """Whether there is something to decide before a batch ends.

        A deadline may be unwatched: the driver may have found no thread for it.
        """
        return len(self._in_flight) < self.slots or bool(self._deadlines.keys) or self._batch_timeout < inf

    def withdraw(self, request: Request[T]) -> bool:
        """Let a caller leave; return False when its outcome was already settled, or it is none of this core."""
        if request.state == SETTLED or request.level.queue.owner is not self._token:
            return False
        self.inconsistent = True
        self._remove(request)
        self._accounting.cancelled += 1
        self.inconsistent = False
        return True

    def finish(self, batch: Batch[T], verdict: Verdict[S], now: float) -> Settled[T, S]:
        """Free the slot of a batch and return what its callers get: nothing, of a batch that was given up."""
        if batch not in self._in_flight:
            self._stalled.pop(batch, None)
            return ()
        self.inconsistent = True
        self._last_event_time = now
        self._accounting.ended(batch, now)
        if self._rule.learns or self._speed_up is not None:
            self._learn(batch, now, well=not isinstance(verdict, Failed))
        if isinstance(verdict, Failed):
            if self._bisect and verdict.divisible and len(batch.requests) > 1:
                middle = len(batch.requests) // 2
                self._bisected += (batch.requests[:middle], batch.requests[middle:])
                del self._in_flight[batch]
                self.inconsistent = False
                return ()
            verdict = verdict.each(len(batch.requests))  # type: ignore[assignment]  # list is invariant
        self._in_transition = [request for request in batch.requests if request.state == RUNNING]
        settled: list[tuple[Request[T], S | Err]] = []
        failed = 0
        for pair in zip(batch.requests, verdict, strict=True):  # type: ignore[arg-type]
            request, outcome = pair
            if request.state == RUNNING:
                request.state = SETTLED
                request.item = None
                if request.deadline < inf:
                    self._deadlines.discard(request)
                if type(outcome) is Err:
                    failed += 1
                settled.append(pair)
        self.running -= len(settled)
        self._accounting.failed += failed
        self._accounting.completed += len(settled) - failed
        del self._in_flight[batch]
        self._in_transition = []
        self.inconsistent = False
        return settled

    def close(self, *, force: bool) -> Settled[T, S]:
        """Accept nothing more. With `force`, fail what waits (halves of divided batches too)."""
        self.closed = True
        if not force:
            return ()
        settled = self._end_stopped(self._waiting())
        self._bisected.clear()
        return settled

    def abandon(self) -> Settled[T, S]:
        """Close with force and fail the running items as well; their batches no longer count."""
        self.closed = True
        running = [request for batch in self._in_flight for request in batch.requests if request.state == RUNNING]
        settled = self._end_stopped(self._waiting() + running)
        self._bisected.clear()
        self._in_flight.clear()
        self.abandoned = True
        return settled

    # Decisions

    def decide(self, now: float) -> Decision[T, S]:
        """Return what is to be done at this time. Ask again until it is Wait or Done."""
        self._last_event_time = now
        if self._deadlines.keys or self._batch_timeout < inf:
            over = self._time_out(now)
            if over is not None:
                return over
        if len(self._in_flight) < self.slots:
            part = self._next_bisected()
            if part:
                return self._start(part, now, "bisect")
            if self.queued:
                earliest: float = self._deadlines.first_key()[0] if self._deadlines.keys else inf
                queue = self._groups.select(now, self.queued, self.accepted, earliest, at_once=self.closed)
                if queue is not None:
                    late = self._drop_late(queue, now) if earliest < inf and not self.closed else []
                    if late:
                        return Expire(late)
                    reason = self._reason(queue)
                    requests = self._take(queue, now)
                    return self._start(requests, now, reason)
        if self.done:
            return Done()
        return Wait(self.due)

    @property
    def due(self) -> float:
        """The earliest time at which `decide` has something to say; -inf: now; inf: not before an event."""
        deadline: float = self._deadlines.first_key()[0] if self._deadlines.keys else inf
        if self._in_flight and self._batch_timeout < inf:
            deadline = min(deadline, next(iter(self._in_flight)).started + self._batch_timeout)
        if len(self._in_flight) < self.slots:
            if self._bisected or self.done:
                return -inf
            if self.queued:
                held = self._groups.held_until(
                    self._last_event_time, self.queued, self.accepted, deadline, at_once=self.closed
                )
                return min(deadline, held) if held > self._last_event_time else -inf
        return deadline

    # Batches

    def _reason(self, queue: GroupQueue[T]) -> Reason:
        if queue.full:
            return "full" if queue.full_by_size else "cost"
        return "drain" if self.closed else self._rule.reason

    def _start(self, requests: list[Request[T]], now: float, reason: Reason) -> Run[T]:
        batch = Batch(requests, now)
        self._in_flight[batch] = None
        if self._rule.learns:
            self._rule.started(batch, [request.arrived for request in requests], reason, self.accepted, now)
        if self._speed_up is not None:
            self._speed_up.started(batch, len(requests), now)
        self._in_transition = []
        self._accounting.started(batch, reason, self.queued, len(self._in_flight))
        self.inconsistent = False
        return Run(batch)

    def _learn(self, batch: Batch[T], now: float, *, well: bool) -> None:
        """Tell those who learn that a batch has ended, or was given up, and follow them."""
        size, seconds = len(batch.requests), now - batch.started
        if self._rule.learns:
            self._rule.finished(batch, size, seconds, self.queued, self.accepted, now, well=well)
            self._groups.limit(self._rule.most())
        if self._speed_up is not None:
            self._speed_up.finished(batch, size, seconds, self.queued, now, well=well)
            if self._speed_up.slots != self.slots:
                self.slots = self._speed_up.slots
                self._rule.allow(self.slots)

    def _next_bisected(self) -> list[Request[T]]:
        while self._bisected:
            part = [request for request in self._bisected[0] if request.state == RUNNING]
            if part:
                self.inconsistent = True
                self._in_transition = part
            self._bisected.popleft()
            if part:
                return part
        return []

    # The end of requests (rule 1)

    def _expire(self, now: float) -> Ended[T]:
        self.inconsistent = True
        due = self._in_transition
        while self._deadlines.keys and self._deadlines.first_key()[0] <= now:
            request = self._deadlines.first()
            due.append(request)
            self._deadlines.discard(request)
        return self._end(due, "expired", lambda request: DeadlineExceededError(messages.expired(request, now)))

    def _time_out(self, now: float) -> Expire[T, S] | None:
        """Settle those whose time is over: their own, or that of a batch that takes too long.

        When too many such batches hang, it is over for all who wait.
        """
        if self._deadlines.keys and self._deadlines.first_key()[0] <= now:
            return Expire(self._expire(now))
        batch = next(iter(self._in_flight), None)
        if batch is not None and batch.started + self._batch_timeout <= now:
            return self._give_up(batch, now)
        if len(self._stalled) >= STALLED_LIMIT and (self.queued or self._bisected):
            msg = messages.stalled(len(self._stalled))
            settled = self._end(self._waiting(), "failed", lambda _: BatchTimeoutError(msg))
            self._bisected.clear()
            return Expire(settled)
        return None

    def _give_up(self, batch: Batch[T], now: float) -> Expire[T, S]:
        running = [request for request in batch.requests if request.state == RUNNING]
        self.inconsistent = True
        self._in_transition = running
        self._stalled[batch] = None
        del self._in_flight[batch]
        self._learn(batch, now, well=False)
        msg = messages.batch_timed_out(batch, now, self._batch_timeout)
        return Expire(self._end(running, "failed", lambda _: BatchTimeoutError(msg)), batch)

    def _drop_late(self, queue: GroupQueue[T], now: float) -> Ended[T]:
        """Settle requests at the head of a queue that its next batch would answer too late; others move up.

        The last one is let go: the prediction may be out of date, and only batches can tell.
        """
        settled: Ended[T] = []
        while self._rule.learns and queue.size > 1:
            end = now + self._rule.seconds_for(queue.next_size)
            request = queue.head()
            if request.deadline >= end:
                break
            self.inconsistent = True
            self._in_transition.append(request)
            settled.append((request, Err(DeadlineExceededError(messages.too_late(request, now, end)))))
            self._remove(request)
            self._accounting.expired += 1
        self._in_transition = []
        self.inconsistent = False
        return settled

    def _end_stopped(self, requests: list[Request[T]]) -> Ended[T]:
        return self._end(requests, "stopped", lambda request: BatcherStoppedError(messages.stopped(request)))

    # Refusals

    def _refuse_late(self, requests: Sequence[Request[T]], now: float) -> None:
        """Refuse what cannot be in time, as far as anything is known: waiting would be for nothing."""
        # Items of a higher priority do not wait behind all that wait.
        deadline = min((request.deadline for request in requests if request.priority <= 0), default=inf)
        # Idle, it lets everything in: what it knows may be out of date, and only batches can tell.
        if deadline == inf or self.idle:
            return
        count = len(requests)
        end = self._rule.answered_at(self.queued + count - 1, now)
        if end > deadline:
            self._accounting.rejected += count
            raise late_refusal(end - deadline, queued=self.queued, running=self.running)

    def _refuse(self, count: int) -> NoReturn:
        self._accounting.rejected += count
        raise refusal(
            count,
            closed=self.closed,
            stalled=len(self._stalled),
            queued=self.queued,
            limit=self._queue_limit,
            seconds=self._accounting.drain.seconds_for(self.queued + self.running),
        )
