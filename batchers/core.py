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

1. A ticket is in one state: QUEUED, RUNNING or SETTLED, and only moves forward. It is settled once,
   by the event or decision that names its outcome; that is where it is counted, and where its item is
   let go. So every accepted item gets exactly one outcome, however events interleave.
2. Batches are formed when a slot is free to run them, never before (late binding): until then they
   grow, and a withdrawn item leaves no hole.
3. Which group goes is decided by `groups`: no full batch waits while a slot is free, and none is held
   longer than the policy says for its oldest item.
4. A divided batch (`on_error="bisect"`) keeps its tickets RUNNING; its halves go before all others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Generic, NoReturn, TypeVar

from .decisions import Batch, Decision, Dispatch, Done, Expire, Run, Settled, Wait
from .drain import LONGEST, SHORTEST
from .errors import (
    BatcherError,
    BatcherStoppedError,
    BatchTimeoutError,
    DeadlineExceededError,
    OptionError,
    QueueFullError,
)
from .groups import Groups
from .lanes import QUEUED, RUNNING, SETTLED, Lane, Ticket
from .ledger import Ledger
from .options import Options
from .order import Order
from .outcomes import Err, Failed, Verdict
from .policy import Reason
from .speed_up import SpeedUp
from .stats import BatcherStats

T = TypeVar("T")
S = TypeVar("S")


STALLED_LIMIT = 4
"""Batches that may hang after they were given up; with so many, no other is begun."""


class Core(Generic[T, S]):
    """The queue and the slots of one batcher. Not thread-safe: the drivers hold a lock."""

    __slots__ = (
        *("_queue_limit", "_batch_timeout", "_slots", "_speed_up", "_bisect", "_rule"),
        *("_groups", "_deadlines", "_divided", "_in_flight", "_stalled"),
        *("_closed", "_abandoned", "_token", "_moving", "torn"),
        *("_number", "_queued", "_running", "_ledger", "_now"),
    )

    def __init__(self, options: Options) -> None:
        """Start empty, open and idle."""
        self._queue_limit = options.queue_limit
        self._batch_timeout = inf if options.batch_timeout is None else options.batch_timeout
        self._slots = options.slots
        self._speed_up = SpeedUp() if options.concurrency == "auto" else None
        self._bisect = options.on_error == "bisect"
        self._token = object()
        self._rule = options.rule()
        self._groups: Groups[T] = Groups(options, self._rule, self._token)
        self._deadlines: Order[Ticket[T]] = Order()  # of tickets that are not settled
        self._divided: deque[list[Ticket[T]]] = deque()
        self._in_flight: dict[Batch[T], None] = {}  # in the order of their starts
        self._stalled: dict[Batch[T], None] = {}  # given up, but still running
        self._closed = self._abandoned = False
        self.torn = False  # whether an event was interrupted half-way, by a signal handler that raised
        self._moving: list[Ticket[T]] = []  # what an event has in its hands meanwhile, so that it is not lost
        self._number = 0
        self._queued = self._running = 0
        self._ledger = Ledger()
        self._now = -inf  # the time of the last event

    # Events

    def offer(self, tickets: Sequence[Ticket[T]], now: float) -> bool:
        """Accept all tickets, or raise and change nothing. Return whether `due` may be earlier now.

        Raises BatcherStoppedError, QueueFullError, DeadlineExceededError, OptionError for more than can ever fit,
        and what groups raise when they are compared.
        """
        count = len(tickets)
        if self._closed or self._queued + count > self._queue_limit or len(self._stalled) >= STALLED_LIMIT:
            self._refuse(count)
        if self._rule.learns:
            self._refuse_late(tickets, now)
        groups = self._groups
        groups.admit(tickets)  # first of all, because it may raise what a user's groups raise
        self.torn = True
        self._now = now
        # A deadline may be unwatched: the driver may have found no thread for it.
        watched = bool(self._deadlines.keys) or self._batch_timeout < inf
        sooner = len(self._in_flight) < self._slots or watched
        for ticket in tickets:
            self._number = ticket.number = self._number + 1
            ticket.arrived = now
            lane = ticket.bucket.lane
            if lane.add(ticket):
                groups.rank(lane)
            if ticket.deadline < inf:
                self._deadlines.put(ticket, (ticket.deadline, ticket.number))
                sooner = True
        self._queued += count
        self.torn = False
        return sooner

    def withdraw(self, ticket: Ticket[T]) -> bool:
        """Let a caller leave; return False when its outcome was already settled, or it is none of this core."""
        if ticket.state == SETTLED or ticket.bucket.lane.owner is not self._token:
            return False
        self.torn = True
        self._leave(ticket)
        self._ledger.cancelled += 1
        self.torn = False
        return True

    def finish(self, batch: Batch[T], verdict: Verdict[S], now: float) -> Settled[T, S]:
        """Free the slot of a batch and return what its callers get: nothing, of a batch that was given up."""
        if batch not in self._in_flight:
            self._stalled.pop(batch, None)
            return ()
        self.torn = True
        self._now = now
        self._ledger.ended(batch, now)
        self._learn(batch, now, well=not isinstance(verdict, Failed))
        if isinstance(verdict, Failed):
            if self._bisect and verdict.divisible and len(batch.tickets) > 1:
                middle = len(batch.tickets) // 2
                self._divided += (batch.tickets[:middle], batch.tickets[middle:])
                del self._in_flight[batch]
                self.torn = False
                return ()
            verdict = verdict.each(len(batch.tickets))  # type: ignore[assignment]  # list is invariant
        self._moving = [ticket for ticket in batch.tickets if ticket.state == RUNNING]
        settled: list[tuple[Ticket[T], S | Err]] = []
        failed = 0
        for pair in zip(batch.tickets, verdict, strict=True):  # type: ignore[arg-type]
            ticket, outcome = pair
            if ticket.state == RUNNING:
                ticket.state = SETTLED
                ticket.item = None
                if ticket.deadline < inf:
                    self._deadlines.discard(ticket)
                if type(outcome) is Err:
                    failed += 1
                settled.append(pair)
        self._running -= len(settled)
        self._ledger.failed += failed
        self._ledger.completed += len(settled) - failed
        del self._in_flight[batch]
        self._moving = []
        self.torn = False
        return settled

    def close(self, *, force: bool) -> Settled[T, S]:
        """Accept nothing more. With `force`, fail what waits (halves of divided batches too)."""
        self._closed = True
        if not force:
            return ()
        settled = self._fail_stopped(self._waiting())
        self._divided.clear()
        return settled

    def abandon(self) -> Settled[T, S]:
        """Close with force and fail the running items as well; their batches no longer count."""
        self._closed = True
        running = [ticket for batch in self._in_flight for ticket in batch.tickets if ticket.state == RUNNING]
        settled = self._fail_stopped(self._waiting() + running)
        self._divided.clear()
        self._in_flight.clear()
        self._abandoned = True
        return settled

    def collapse(self) -> list[Ticket[T]]:
        """After an error inside: close, and give up every ticket, whatever state the structures are in."""
        tickets = [ticket for part in self._divided for ticket in part] + self._groups.waiting()
        for batch in self._in_flight:
            tickets += batch.tickets
        # Those that the interrupted event had in its hands may be settled, but nobody was told.
        tickets = [*self._moving, *(ticket for ticket in tickets if ticket.state != SETTLED)]
        tickets = list(dict.fromkeys(tickets))
        for ticket in tickets:
            ticket.state = SETTLED
            ticket.item = None
        ledger = self._ledger
        ledger.stopped = self._number - ledger.completed - ledger.failed - ledger.cancelled - ledger.expired
        self._queued = self._running = 0
        self._moving = []
        self._closed = self._abandoned = True
        self._divided.clear()
        self._in_flight.clear()
        self._groups.clear()
        self._deadlines = Order()
        self.torn = False
        return tickets

    # Decisions

    def decide(self, now: float) -> Decision[T, S]:
        """Return what is to be done at this time. Ask again until it is Wait or Done."""
        self._now = now
        if self._deadlines.keys or self._batch_timeout < inf:
            over = self._over(now)
            if over is not None:
                return over
        if len(self._in_flight) < self._slots:
            part = self._next_divided()
            if part:
                return self._start(part, now, "bisect")
            if self._queued:
                earliest: float = self._deadlines.first_key()[0] if self._deadlines.keys else inf
                lane = self._groups.next_to_go(now, self._queued, self._number, earliest, at_once=self._closed)
                if lane is not None:
                    late = self._late(lane, now) if earliest < inf and not self._closed else []
                    if late:
                        return Expire(late)
                    reason = self._reason(lane)
                    tickets = self._take(lane, now)
                    return self._start(tickets, now, reason)
        if self.done:
            return Done()
        return Wait(self.due)

    @property
    def due(self) -> float:
        """The earliest time at which `decide` has something to say; -inf: now; inf: not before an event."""
        deadline: float = self._deadlines.first_key()[0] if self._deadlines.keys else inf
        if self._in_flight and self._batch_timeout < inf:
            deadline = min(deadline, next(iter(self._in_flight)).started + self._batch_timeout)
        if len(self._in_flight) < self._slots:
            if self._divided or self.done:
                return -inf
            if self._queued:
                held = self._groups.held_until(
                    self._now, self._queued, self._number, deadline, at_once=self._closed
                )
                return min(deadline, held) if held > self._now else -inf
        return deadline

    @property
    def done(self) -> bool:
        """Whether it is closed and nothing is left to run."""
        return self._closed and self.idle

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not (self._queued or self._in_flight or self._divided)

    @property
    def closed(self) -> bool:
        """Whether it refuses all offers."""
        return self._closed

    @property
    def abandoned(self) -> bool:
        """Whether running batches were given up."""
        return self._abandoned

    @property
    def queued(self) -> int:
        """Items that wait."""
        return self._queued

    @property
    def in_flight(self) -> int:
        """Batches that run."""
        return len(self._in_flight)

    @property
    def running(self) -> int:
        """Items in running batches whose callers have not left."""
        return self._running

    @property
    def accepted(self) -> int:
        """Items that were ever accepted."""
        return self._number

    @property
    def slots(self) -> int:
        """Batches that may be in flight now."""
        return self._slots

    @property
    def stalled(self) -> int:
        """Batches that were given up and still run."""
        return len(self._stalled)

    @property
    def running_batches(self) -> tuple[list[Batch[T]], list[Batch[T]]]:
        """Batches in flight, and those that were given up and still run."""
        return list(self._in_flight), list(self._stalled)

    def stats(self) -> BatcherStats:
        """Return the counters as they are now."""
        return self._ledger.stats(
            accepted=self._number,
            queued=self._queued,
            running=self._running,
            in_flight=len(self._in_flight),
            stalled=len(self._stalled),
            slots=self._slots,
        )

    def dispatches(self) -> list[Dispatch]:
        """Return the last starts of batches, oldest first."""
        return self._ledger.dispatches()

    # Batches

    def _take(self, lane: Lane[T], now: float) -> list[Ticket[T]]:
        self.torn = True
        tickets = self._moving
        self._groups.take(lane, tickets)
        self._queued -= len(tickets)
        self._running += len(tickets)
        for ticket in tickets:
            ticket.state = RUNNING
        self._ledger.taken(tickets, now)
        return tickets

    def _reason(self, lane: Lane[T]) -> Reason:
        if lane.full:
            return "full" if lane.has_most else "cost"
        return "drain" if self._closed else self._rule.reason

    def _start(self, tickets: list[Ticket[T]], now: float, reason: Reason) -> Run[T]:
        batch = Batch(tickets, now)
        self._in_flight[batch] = None
        if self._rule.learns:
            self._rule.started(batch, [ticket.arrived for ticket in tickets], reason, self._number, now)
        if self._speed_up is not None:
            self._speed_up.started(batch, len(tickets), now)
        self._moving = []
        self._ledger.started(batch, reason, self._queued, len(self._in_flight))
        self.torn = False
        return Run(batch)

    def _learn(self, batch: Batch[T], now: float, *, well: bool) -> None:
        """Tell those who learn that a batch has ended, or was given up, and follow them."""
        size, seconds = len(batch.tickets), now - batch.started
        if self._rule.learns:
            self._rule.finished(batch, size, seconds, self._queued, self._number, now, well=well)
            self._groups.limit(self._rule.most())
        if self._speed_up is not None:
            self._speed_up.finished(batch, size, seconds, self._queued, now, well=well)
            if self._speed_up.slots != self._slots:
                self._slots = self._speed_up.slots
                self._rule.allow(self._slots)

    def _next_divided(self) -> list[Ticket[T]]:
        while self._divided:
            part = [ticket for ticket in self._divided[0] if ticket.state == RUNNING]
            if part:
                self.torn = True
                self._moving = part
            self._divided.popleft()
            if part:
                return part
        return []

    # The end of tickets (rule 1)

    def _leave(self, ticket: Ticket[T]) -> None:
        """Settle a ticket: take it out of its place and let go of its item. The caller counts it."""
        state, ticket.state = ticket.state, SETTLED
        if state == QUEUED:
            self._queued -= 1
            self._groups.remove(ticket)
        else:
            self._running -= 1
        if ticket.deadline < inf:
            self._deadlines.discard(ticket)
        ticket.item = None

    def _expire(self, now: float) -> list[tuple[Ticket[T], Err]]:
        settled = []
        self.torn = True
        while self._deadlines.keys and self._deadlines.first_key()[0] <= now:
            ticket = self._deadlines.first()
            self._moving.append(ticket)
            where = "in the queue" if ticket.state == QUEUED else "in a running batch"
            self._leave(ticket)
            self._ledger.expired += 1
            msg = (
                f"no answer after {now - ticket.arrived:.3f} s: the item was still {where}; "
                "give it a longer timeout, or add capacity"
            )
            settled.append((ticket, Err(DeadlineExceededError(msg))))
        self._moving = []
        self.torn = False
        return settled

    def _over(self, now: float) -> Expire[T, S] | None:
        """Settle those whose time is over: their own, or that of a batch that takes too long.

        When too many such batches hang, it is over for all who wait.
        """
        if self._deadlines.keys and self._deadlines.first_key()[0] <= now:
            return Expire(self._expire(now))
        batch = next(iter(self._in_flight), None)
        if batch is not None and batch.started + self._batch_timeout <= now:
            return self._give_up(batch, now)
        if len(self._stalled) >= STALLED_LIMIT and (self._queued or self._divided):
            settled = self._fail(self._waiting(), BatchTimeoutError, self._hopeless())
            self._divided.clear()
            return Expire(settled)
        return None

    def _give_up(self, batch: Batch[T], now: float) -> Expire[T, S]:
        running = [ticket for ticket in batch.tickets if ticket.state == RUNNING]
        self.torn = True
        self._moving = running
        self._stalled[batch] = None
        del self._in_flight[batch]
        self._learn(batch, now, well=False)
        msg = (
            f"process_batch has not returned after {now - batch.started:.3f} s (batch_timeout is "
            f"{self._batch_timeout}): give it more time, or see where it hangs with batcher.dump()"
        )
        return Expire(self._fail(running, BatchTimeoutError, msg), batch)

    def _hopeless(self) -> str:
        return (
            f"{len(self._stalled)} calls of process_batch hang, and no other is begun until one returns: "
            "see where with batcher.dump(), and restart the process"
        )

    def _late(self, lane: Lane[T], now: float) -> list[tuple[Ticket[T], Err]]:
        """Settle those at the head of a lane whom its next batch would make late: others get their places in it.

        The last one is let go: the prediction may be out of date, and only batches can tell.
        """
        settled: list[tuple[Ticket[T], Err]] = []
        while self._rule.learns and lane.size > 1:
            ends = now + self._rule.seconds_for(lane.next_size)
            ticket = lane.head()
            if ticket.deadline >= ends:
                break
            self.torn = True
            self._moving.append(ticket)
            self._leave(ticket)
            self._ledger.expired += 1
            msg = (
                f"no answer in time: after {now - ticket.arrived:.3f} s in the queue the next batch would end "
                f"{ends - ticket.deadline:.3f} s too late; give it a longer timeout, or add capacity"
            )
            settled.append((ticket, Err(DeadlineExceededError(msg))))
        self._moving = []
        self.torn = False
        return settled

    def _waiting(self) -> list[Ticket[T]]:
        divided = [ticket for part in self._divided for ticket in part if ticket.state == RUNNING]
        return divided + self._groups.waiting()

    def _fail(self, tickets: list[Ticket[T]], kind: type[BatcherError], msg: str) -> list[tuple[Ticket[T], Err]]:
        """Let each of them fail, with an error of its own."""
        self.torn = True
        self._moving = tickets
        settled = [(ticket, Err(kind(msg))) for ticket in tickets]
        for ticket in tickets:
            self._leave(ticket)
        self._ledger.failed += len(tickets)
        self._moving = []
        self.torn = False
        return settled

    def _fail_stopped(self, tickets: list[Ticket[T]]) -> list[tuple[Ticket[T], Err]]:
        settled = []
        self.torn = True
        self._moving = tickets
        for ticket in tickets:
            where = "waited" if ticket.state == QUEUED else "ran"
            self._leave(ticket)
            self._ledger.stopped += 1
            msg = f"the batcher was stopped while the item {where}; stop without force or timeout serves all"
            settled.append((ticket, Err(BatcherStoppedError(msg))))
        self._moving = []
        self.torn = False
        return settled

    # Refusals

    def _refuse_late(self, tickets: Sequence[Ticket[T]], now: float) -> None:
        """Refuse what cannot be in time, as far as anything is known: waiting would be for nothing."""
        # Items of a higher priority do not wait behind all that wait.
        deadline = min((ticket.deadline for ticket in tickets if ticket.priority <= 0), default=inf)
        # Idle, it lets everything in: what it knows may be out of date, and only batches can tell.
        if deadline == inf or self.idle:
            return
        count = len(tickets)
        ends = self._rule.answered_at(self._queued + count - 1, now)
        if ends > deadline:
            self._ledger.rejected += count
            seconds = min(max(ends - deadline, SHORTEST), LONGEST)
            msg = (
                f"{self._queued} items wait and {self._running} run: the answer would be {ends - deadline:.3f} s "
                f"late; try again in about {seconds:.3f} s, give it a longer timeout, or add capacity"
            )
            raise DeadlineExceededError(msg, retry_after=seconds)

    def _refuse(self, count: int) -> NoReturn:
        self._ledger.rejected += count
        if self._closed:
            msg = "the batcher is stopped; make a new one"
            raise BatcherStoppedError(msg)
        if len(self._stalled) >= STALLED_LIMIT:
            raise BatchTimeoutError(self._hopeless())
        if count > self._queue_limit:
            msg = f"{count} items can never fit max_queue_size={self._queue_limit}: hand in fewer at a time"
            raise OptionError(msg)
        seconds = self._ledger.drain.seconds_for(self._queued + self._running)
        msg = (
            f"{self._queued} items wait and max_queue_size is {self._queue_limit}: try again in about "
            f"{seconds:.3f} s, raise max_queue_size, or add capacity"
        )
        raise QueueFullError(msg, retry_after=seconds)
