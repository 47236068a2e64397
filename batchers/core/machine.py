"""State machine that makes all decisions of a batcher.

This module is pure: it uses no thread, no event loop and no clock.

Theory of operation
===================

The driver reports events to the core. An event has the time as an argument if the time matters:

    offer      A caller submits items. The core accepts all of them, or raises an error and accepts none.
    withdraw   A caller cancels. Its item never runs, or the result of its running item is dropped.
    finish     A batch has ended. The core returns the outcome of each request.
    close      The batcher accepts no more items. With `force`, the core returns the error of each waiting request.
    abandon    The driver does not wait any longer. The same as `close` with `force`, also for running requests.

The driver calls `decide(now)` until the decision is Wait or Done:

    Run(batch)      Call `process_batch` with these items, and report the end with `finish`.
    Expire(...)     Deliver the errors of requests that ended early (by their deadline or by a batch timeout), and
                    interrupt a batch that was given up, or that nobody waits for.
    Wait(until)     Do nothing before the time `until`, unless an event occurs earlier.
    Done            The batcher is closed, and nothing is queued or running. This state is final.

`due` is the earliest time at which `decide` would return another decision than Wait. The value `-inf` means now,
and `inf` means not before the next event. A driver stores the `until` of its last Wait. After each event, it
compares `due` with this time. This one comparison shows whether a thread or a loop must be woken.

Four rules hold between any two events. The tests check them after every event:

1. A request has one of the states QUEUED, RUNNING and SETTLED, and passes through them in this order only. A
   request is settled once, by the event or decision that determines its outcome. The same event or decision
   counts the request and releases its item. Therefore every accepted item gets exactly one outcome, in every
   order of events. The driver releases its item after the delivery.
2. A batch is formed when a slot is free to run it, never earlier (late binding). Until then, the next batch can
   grow, and a withdrawn item leaves no gap in it.
3. The module `groups` selects the group that is dispatched. No full batch waits while a slot is free. No group is
   held longer than the policy allows for its oldest item.
4. The requests of a bisected batch (`on_error="bisect"`) stay RUNNING. The halves are dispatched before all other
   batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TypeVar

from batchers.errors import BatcherError, BatchTimeoutError, DeadlineExceededError
from batchers.policies.base import Reason

from . import messages
from .decisions import Batch, Decision, Done, Expire, Run, Settled, Wait
from .endings import Endings
from .group_queue import RUNNING, SETTLED, GroupQueue, Request
from .outcomes import Err, Failed, Verdict
from .refusals import STALLED_LIMIT, late_refusal
from .state import Ended

T = TypeVar("T")
S = TypeVar("S")


class Core(Endings[T, S]):
    """The events and the decisions of one batcher.

    The class is not thread-safe: the drivers hold a lock during each call.
    """

    __slots__ = ()

    # Events

    def offer(self, requests: Sequence[Request[T]], now: float) -> bool:
        """Accept all requests, or raise an error and accept none; return True if `due` may be earlier now.

        `now` is a time in seconds of the batcher's clock. A refusal changes only the counter of rejected items.

        Raises BatcherStoppedError, BatchTimeoutError (too many batches are stalled), QueueFullError,
        DeadlineExceededError, OptionError if the requests can never fit into the queue, and any error that the
        comparison of groups raises.
        """
        count = len(requests)
        if count == 1:
            return self.offer_one(requests[0], now)
        self.check_room(count)
        if self._rule.learns:
            self._refuse_late(requests, now)
        try:
            self._groups.admit(requests)  # first, because the comparison of a user's groups may raise an error
        except BaseException:
            self.inconsistent = self._groups.changing
            raise
        self.inconsistent = True
        for request in requests:
            self._enqueue(request, now)
        self.inconsistent = False
        return self._watches

    def offer_one(self, request: Request[T], now: float) -> bool:
        """Do the same as `offer` for one request, in less time."""
        if self.closed or self.queued >= self.queue_limit or len(self._stalled) >= STALLED_LIMIT:
            self._refuse(1)
        if self._rule.learns:
            self._refuse_late((request,), now)
        # This repeats the code of `admit_one`, `_enqueue` and `_watches`, which saves three calls for each item.
        try:
            queue = self._groups.queues.get(request.group)
            if queue is None or (level := queue.levels.get(request.priority)) is None:
                self._groups.admit_one(request)
                queue = request.level.queue
            else:
                request.level = level
        except BaseException:
            self.inconsistent = self._groups.changing
            raise
        self.inconsistent = True
        self._last_event_time = request.arrived = now
        self.accepted = request.number = self.accepted + 1
        if queue.add(request):
            self._groups.rank(queue)
        if request.deadline < inf:
            self._deadlines.put(request, (request.deadline, request.number))
        self.queued += 1
        self.inconsistent = False
        return len(self._in_flight) < self.slots or bool(self._deadlines.keys) or self._batch_timeout < inf

    def offer_each(self, requests: Sequence[Request[T]], now: float) -> list[tuple[Request[T], BatcherError]]:
        """Do the same as `offer_one` for requests of different calls; return those that are refused, and why."""
        refused: list[tuple[Request[T], BatcherError]] = []
        for request in requests:
            try:
                self.offer_one(request, now)
            except BatcherError as error:
                refused.append((request, error))
        return refused

    def _enqueue(self, request: Request[T], now: float) -> None:
        """Assign a number to a request, and add it to its queue and to the heap of deadlines."""
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
        """True if the core may have a decision to make before a batch ends.

        Every deadline counts, old ones too: the driver may have found no thread to wait for them.
        """
        return len(self._in_flight) < self.slots or bool(self._deadlines.keys) or self._batch_timeout < inf

    def withdraw(self, request: Request[T]) -> bool:
        """Settle the request of a caller that cancels, and return True.

        Return False, without a change, if the request is already settled or belongs to another core.
        """
        if request.state == SETTLED or request.level.queue.owner is not self._token:
            return False
        self.inconsistent = True
        self._remove(request)
        self._accounting.cancelled += 1
        self.inconsistent = False
        return True

    def finish(  # noqa: C901 - for every batch: another function costs time
        self, batch: Batch[T], verdict: Verdict[S], now: float
    ) -> Settled[T, S]:
        """Free the slot of a batch, and return the requests that it settles with their outcomes.

        The result is empty if the batch was given up before, or if it failed and is bisected.
        """
        if batch not in self._in_flight:
            self._stalled.pop(batch, None)
            return ()
        self.inconsistent = True
        self._last_event_time = now
        if self._deserted:
            self._deserted.pop(batch, None)
        if not (batch.took or batch.cancelled):  # otherwise, the first report was interrupted
            self._accounting.ended(batch, now)
        if self._observes:
            self._learn(batch, now, well=not (batch.cancelled or isinstance(verdict, Failed)))
        if batch.cancelled or (type(verdict) is Failed and self._halve(batch, verdict)):
            del self._in_flight[batch]
            self.inconsistent = False
            return ()
        if type(verdict) is Failed:
            self._accounting.failed_batches += not batch.failed  # otherwise, the first report was interrupted
            batch.failed = True
            verdict = verdict.each(len(batch.requests))  # type: ignore[assignment]  # list is invariant
        self._in_transition = [request for request in batch.requests if request.state == RUNNING]
        settled: list[tuple[Request[T], S | Err]] = []
        failed = 0
        for pair in zip(batch.requests, verdict, strict=True):  # type: ignore[arg-type]
            request, outcome = pair
            if request.state == RUNNING:
                request.state = SETTLED
                if request.deadline < inf:
                    self._deadlines.discard(request)
                if type(outcome) is Err:
                    failed += 1
                settled.append(pair)
        self.ended = settled
        self.running -= len(settled)
        self._accounting.failed += failed
        self._accounting.completed += len(settled) - failed
        del self._in_flight[batch]
        self._in_transition = []
        self.inconsistent = False
        return settled

    # Decisions

    def decide(self, now: float) -> Decision[T, S]:
        """Return the decision for the time `now`, in seconds of the batcher's clock.

        The driver calls this method again until the decision is Wait or Done.
        """
        self._last_event_time = now
        self.ended = ()
        if self._deadlines.keys or self._batch_timeout < inf or self._deserted:
            over = self._time_out(now)
            if over is not None:
                return over
        if len(self._in_flight) < self.slots:
            part = self._next_bisected() if self._bisected else None
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
                    return self._start(requests, now, "length" if queue.by_length else reason)
        if self.done:
            return Done()
        return Wait(self.due)

    @property
    def due(self) -> float:
        """Earliest time at which `decide` returns another decision than Wait.

        -inf means now; inf means not before the next event.
        """
        if self._deserted:
            return -inf
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
        if self._cancel_abandoned:
            self._count_callers(batch)
        self._in_flight[batch] = None
        if self._rule.learns:
            self._rule.started(batch, [request.arrived for request in requests], reason, self.accepted, now)
        if self._speed_up is not None:
            self._speed_up.started(batch, len(requests), now)
        self._in_transition = []
        self._accounting.started(batch, reason, self.queued, len(self._in_flight))
        if self._model is not None:
            self._accounting.padded([request.cost for request in requests])
        self.inconsistent = False
        return Run(batch)

    def _learn(self, batch: Batch[T], now: float, *, well: bool) -> None:
        """Report a batch that ended or was given up to the policy and to `SpeedUp`, and apply their new limits."""
        if batch in self._unlearned:
            self._unlearned.discard(batch)
            return
        size, seconds = len(batch.requests), now - batch.started
        if self._rule.learns:
            self._rule.finished(batch, size, seconds, self.queued, self.accepted, now, well=well)
            self._groups.limit(self._rule.most())
        if self._model is not None and well:
            self._model.observe(size, max(request.cost for request in batch.requests), seconds)
        if self._speed_up is not None:
            self._speed_up.finished(batch, size, seconds, self.queued, now, well=well)
            if self._speed_up.slots != self.slots:
                self.slots = self._speed_up.slots
                self._rule.allow(self.slots)

    # Settlement of requests (rule 1)

    def _expire(self, now: float) -> Ended[T]:
        self.inconsistent = True
        due = self._in_transition
        while self._deadlines.keys and self._deadlines.first_key()[0] <= now:
            request = self._deadlines.first()
            due.append(request)
            self._deadlines.discard(request)
        return self._end(due, "expired", lambda request: DeadlineExceededError(messages.expired(request, now)))

    def _time_out(self, now: float) -> Expire[T, S] | None:
        """Settle the requests whose deadline or batch timeout has passed; return None if there are none.

        If STALLED_LIMIT batches are stalled, settle all waiting requests. Decide, too, to cancel the batches whose
        callers have left.
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
        if self._deserted:
            batch, _ = self._deserted.popitem()
            batch.abandoned = True
            return Expire((), batch)
        return None

    def _give_up(self, batch: Batch[T], now: float) -> Expire[T, S]:
        running = [request for request in batch.requests if request.state == RUNNING]
        msg = messages.batch_timed_out(batch, now, self._batch_timeout)
        settled = self._end(running, "failed", lambda _: BatchTimeoutError(msg))  # first, so that none runs again
        self.inconsistent = True
        self._stalled[batch] = None
        self._deserted.pop(batch, None)
        del self._in_flight[batch]
        self._learn(batch, now, well=False)
        self.inconsistent = False
        return Expire(settled, batch)

    def _drop_late(self, queue: GroupQueue[T], now: float) -> Ended[T]:
        """Settle the requests at the head of a queue that the next batch would answer after their deadline.

        Later requests take their places. The last request of the queue is never dropped: the prediction may be
        out of date, and only the end of a batch can correct it.
        """
        settled: Ended[T] = []
        self.ended = settled
        self._counter = "expired"
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
        self._counter = "cancelled"
        self._in_transition = []
        self.inconsistent = False
        return settled

    # Refusals

    def _refuse_late(self, requests: Sequence[Request[T]], now: float) -> None:
        """Raise DeadlineExceededError if the predicted answer is later than the earliest deadline of the requests.

        Their wait would be useless.
        """
        # Requests of a priority above 0 do not wait behind all queued requests.
        deadline = min((request.deadline for request in requests if request.priority <= 0), default=inf)
        # An idle batcher accepts all: the prediction may be out of date, and only a new batch can correct it.
        if deadline == inf or self.idle:
            return
        count = len(requests)
        end = self._rule.answered_at(self.queued + count - 1, now)
        if end > deadline:
            self._accounting.rejected += count
            raise late_refusal(end - deadline, queued=self.queued, running=self.running)
