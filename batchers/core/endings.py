"""Events that concern all requests of a batcher at once: its end, and exceptions in the middle of an event.

This module is pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from operator import attrgetter
from typing import TypeVar

from batchers.errors import BatcherError, BatcherStoppedError
from batchers.options import Options
from batchers.policies.lengths import LengthModel
from batchers.policies.speed_up import SpeedUp

from . import messages
from .decisions import Batch, Settled
from .exceptions import own_copy
from .group_queue import QUEUED, RUNNING, SETTLED, GroupQueue, Level, Request
from .groups import Groups
from .indexed_heap import IndexedHeap
from .outcomes import Err
from .state import Ended, State

T = TypeVar("T")
S = TypeVar("S")


class Endings(State[T, S]):
    """State of one batcher, with the events that settle or restore all of its requests."""

    __slots__ = ()

    # The end

    def close(self, *, force: bool) -> Settled[T, S]:
        """Accept no more requests; with `force`, settle all waiting requests with BatcherStoppedError.

        The requests in the halves of bisected batches are waiting requests too. Return the settled requests.
        """
        self.closed = True
        if not force:
            return ()
        settled = self._end_stopped(self._waiting())
        self._bisected.clear()
        return settled

    def fail_waiting(self, error: Callable[[Request[T]], BatcherError]) -> Settled[T, S]:
        """Settle all waiting requests, each with an error of its own, because nothing can run them."""
        settled = self._end(self._waiting(), "failed", error)
        self._bisected.clear()
        return settled

    def abandon(self) -> Settled[T, S]:
        """Close with force, and settle the running requests with BatcherStoppedError too.

        Their batches are not in flight any more. Return the settled requests.
        """
        self.closed = True
        running = [request for batch in self._in_flight for request in batch.requests if request.state == RUNNING]
        settled = self._end_stopped(self._waiting() + running)
        self._bisected.clear()
        self._in_flight.clear()
        self._deserted.clear()
        self._unlearned.clear()
        self.abandoned = True
        return settled

    def _end_stopped(self, requests: list[Request[T]]) -> Ended[T]:
        return self._end(requests, "stopped", lambda request: BatcherStoppedError(messages.stopped(request)))

    # Exceptions in the middle of an event

    def repair(self) -> Settled[T, S]:
        """Restore a consistent state after an exception in the middle of an event.

        A batch that the driver does not have is dissolved, and its requests wait again. The batches that run stay
        in flight, and the driver reports their ends, again if need be. Requests that the interrupted event has
        settled stay settled. What the policy has learned is lost, because its state may be inconsistent too.

        Return the outcomes of the interrupted event. The driver may have delivered them or not; to do it again has
        no effect. The driver sets `inconsistent` to False when it has noted them. Until then the repair may be
        interrupted, too, and repeated.
        """
        ended = list(self.ended)
        for request, _ in ended:
            request.state = SETTLED  # the event may not have come to that
        settled = {id(request) for request, _ in ended}
        moving = {id(request) for request in self._in_transition}
        waiting = {id(request): request for request in (*self._in_transition, *self._groups.waiting())}
        running: list[Batch[T]] = []
        for batch in self._in_flight:
            # Expired requests are settled, too, but their batch runs on: it has ended if its time is known.
            has_ended = batch.took and any(id(request) in settled for request in batch.requests)
            if batch.begun and not has_ended:
                running.append(batch)
                for request in batch.requests:
                    if id(request) in moving - settled and request.state == SETTLED:
                        request.state = RUNNING  # its end will come once more
                    waiting.pop(id(request), None)
            else:
                waiting |= {id(request): request for request in batch.requests}
        for part in self._bisected:
            for request in part:
                waiting.pop(id(request), None)
        self._in_transition = [request for key, request in waiting.items() if key not in settled]
        self._in_flight = dict.fromkeys(running)
        for batch in running:
            self._stalled.pop(batch, None)
        self._bisected = deque(
            part for part in self._bisected if not any(part[0] in batch.requests for batch in running)
        )
        self._rebuild(self._in_transition)
        self._recount()
        self._in_transition = []
        return self.ended

    def _rebuild(self, waiting: list[Request[T]]) -> None:
        """Make new queues of these requests, without those that are settled.

        The requests whose group cannot be compared any more have the error of the comparison in `ended`.
        """
        options = self.options
        self._adopt(options)  # a change of the limits may have been interrupted
        self._rule = options.rule()
        self._rule.allow(self.slots)
        self._speed_up = SpeedUp() if options.concurrency == "auto" else None
        self._model = LengthModel() if self._model is not None else None
        self._observes = self._rule.learns or self._speed_up is not None or self._model is not None
        self._unlearned = set(self._in_flight) if self._observes else set()
        # A new token: a request that is in no place any more belongs to no core, and cannot be withdrawn.
        self._token = object()
        groups: Groups[T] = Groups(options, self._rule, self._token, self._model)
        deadlines: IndexedHeap[Request[T]] = IndexedHeap()
        failed: Ended[T] = []
        live = [request for request in waiting if request.state != SETTLED]
        for request in sorted(live, key=attrgetter("number")):
            request.state = QUEUED
            try:
                groups.admit_one(request)
            except (MemoryError, RecursionError):
                raise  # the repair is repeated when there is room
            except Exception as error:  # noqa: BLE001 - from a user's `__hash__` or `__eq__`
                failed.append((request, Err(own_copy(error))))
                continue
            if request.level.queue.add(request):
                groups.rank(request.level.queue)
        self.ended = [*self.ended, *failed]  # first, so that they are not lost if this is interrupted and repeated
        for request, _ in failed:
            request.state = SETTLED
        self._accounting.failed += len(failed)
        running = [request for batch in self._in_flight for request in batch.requests]
        running += [request for part in self._bisected for request in part]
        elsewhere: Level[T] = GroupQueue[T](None, self._token).new_level(0)
        for request in running:
            request.level = elsewhere
        for request in (*live, *running):
            if request.state != SETTLED and request.deadline < inf:
                deadlines.put(request, (request.deadline, request.number))
        self._groups, self._deadlines = groups, deadlines
        self.queued = len(live) - len(failed)
        self.running = sum(request.state == RUNNING for request in running)

    # Other limits

    def reconfigure(self, options: Options) -> Settled[T, S]:
        """Continue with other limits, or another policy; return requests whose group cannot be compared any more.

        Requests that wait keep their order, and batches that run go on. A queue that is too long now takes no more
        requests until it is shorter. A new policy has learned nothing yet; it does not see the ends of the batches
        that run now. A change that an exception interrupts is completed by `repair`.
        """
        old = self.options
        self.inconsistent = True
        self.ended = ()
        self._adopt(options)
        same = ("chosen_policy", "batch_limit", "concurrency", "timeout")
        changes = any(getattr(old, name) != getattr(options, name) for name in same)
        ended: Settled[T, S] = self.repair() if changes else ()
        self.ended = ()
        self.inconsistent = False
        return ended

    def _recount(self) -> None:
        """Count the requests that the interrupted event has settled, and the callers of the batches."""
        self._deserted.clear()
        if self._cancel_abandoned:
            for batch in self._in_flight:
                self._count_callers(batch)
                if not (batch.callers.left or batch.interrupted):
                    self._deserted[batch] = None
        counts = self._accounting
        known = counts.completed + counts.failed + counts.cancelled + counts.expired + counts.stopped
        missing = self.accepted - known - self.queued - self.running
        if missing < 0:  # counted, and then its end was undone
            counts.completed += missing
        else:
            setattr(counts, self._counter, getattr(counts, self._counter) + missing)
        self._counter = "cancelled"

    def abort(self, failure: str) -> list[Request[T]]:
        """Close after an internal error: settle all requests, and return those that still need an outcome.

        `failure` is the cause, for the errors of later calls. The method works in every state of the structures,
        also in an inconsistent one.
        """
        requests = [request for part in self._bisected for request in part] + self._groups.waiting()
        for batch in self._in_flight:
            requests += batch.requests
        # Requests of the interrupted event may be SETTLED already, but their outcomes were not delivered.
        ended = [request for request, _ in self.ended] if self.inconsistent else []
        waiting = [request for request in requests if request.state != SETTLED]
        requests = [*ended, *self._in_transition, *waiting]
        requests = list(dict.fromkeys(requests))
        for request in requests:
            request.state = SETTLED
        accounting = self._accounting
        accounting.stopped = (
            self.accepted - accounting.completed - accounting.failed - accounting.cancelled - accounting.expired
        )
        self.queued = self.running = 0
        self._in_transition = []
        self.closed = self.abandoned = True
        self.failure = failure
        self.ended = ()
        self._bisected.clear()
        self._in_flight.clear()
        self._deserted.clear()
        self._unlearned.clear()
        self._groups.clear()
        self._deadlines = IndexedHeap()
        self.inconsistent = False
        return requests
