"""Pure: the policy that needs no tuning, because it learns what a hold is worth.

Theory of operation
===================

With one batch in flight and independent callers, taking what waits is within 0.7 % of the best that any rule can
do (`Greedy`). It is far from it in two cases, and there this rule holds a free slot for a moment:

*Cohorts.* Callers that come back as soon as they have their answer lock into two halves that wait for each other.
With one batch in flight the rule waits for all of them where it has seen that more are served then: `cohort`.

*Several batches in flight.* Greedy's batches bunch, like buses: a batch that starts right behind another finds few
items. The rule starts a batch when it lies evenly between the last start and the next end, unless fewer items are
going to come until that end than wait now. In the long run the starts are then a batch time / c apart.

*Deadlines.* With a time for each call the rule looks ahead: a batch may take half of that time at most, for an
item waits for one batch and then for its own; what cannot be in time is refused when it comes; what the next batch
would make late is dropped when that batch goes; and no hold makes an item late. Batches are not made smaller for
an old item: under overload that leads to batches of one (as Nexus found, SOSP 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from batchers.errors import OptionError

from .base import Policy, Reason, Rule
from .cohort import NO_HOLD, Cohort
from .cost_model import CostModel

LEARNED = 0.05
"""The weight of the newest batch in the rate of arrivals."""


@dataclass(frozen=True, slots=True)
class Adaptive(Policy):
    """A free slot takes what waits, unless more is about to come and worth the wait.

    It learns how long batches take and when callers return (see the module), and needs no tuning. No batch is held
    for more than `max_hold` seconds (finite, 0 or more), counted from the end of the batch before it, or, with
    several batches in flight, from the start of the batch before it. Items of several groups that wait at the
    same time are not held.

    `latency_target`: seconds (above 0) in which callers want their answers; it is the timeout of calls that have
    none, and batches take half of it at most. None: the batcher's `timeout` counts for that. With either, calls
    that cannot be answered in time are refused at once with DeadlineExceededError, which then has a `retry_after`.
    """

    max_hold: float = 0.025
    latency_target: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no span of time."""
        value: object = self.max_hold
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < inf:
            msg = f"max_hold must be a finite number of seconds, 0 or more, not {value!r}"
            raise OptionError(msg)
        target: object = self.latency_target
        if target is None:
            return
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target < inf:
            msg = f"latency_target must be a finite number of seconds above 0, or None, not {target!r}"
            raise OptionError(msg)

    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:
        """Return a rule that has not learned anything yet."""
        return AdaptiveRule(self.max_hold, max_batch_size, concurrency, self.latency_target or timeout)

    @property
    def default_timeout(self) -> float | None:
        """The latency target."""
        return self.latency_target


class AdaptiveRule(Rule):
    """What `Adaptive` has learned of one batcher."""

    __slots__ = (
        *("cost", "_cohort", "_max_hold", "_most", "_slots", "_target"),
        *("_come", "_span", "_last_end"),
        *("_running", "_parts", "_last_start"),
        *("_held", "_why"),
    )

    learns = True

    def __init__(
        self, max_hold: float, max_batch_size: int, concurrency: int, target: float | None = None
    ) -> None:
        """Start without any idea: nothing is held."""
        self.cost = CostModel()
        self._max_hold = max_hold
        self._most = max_batch_size
        self._slots = concurrency
        self._target = target
        self._cohort = Cohort(max_hold)
        self._come = self._span = 0.0  # items between ends of batches, and the seconds
        self._last_end: tuple[float, int] | None = None  # and how many items had been accepted then
        self._running: dict[object, float] = {}  # batches, and when each will probably end
        self._parts: set[object] = set()  # of them, those that are parts of a failed one
        self._last_start = -inf
        self._end_hold()

    def started(self, batch: object, arrivals: Sequence[float], reason: Reason, accepted: int, now: float) -> None:
        """Note when it will probably end; and who came back."""
        self._last_start = now
        self._running[batch] = now + self.cost.predict(len(arrivals))
        self._end_hold()
        if reason == "bisect":
            self._parts.add(batch)
        elif self._slots == 1:
            self._cohort.started(arrivals, accepted, full=reason in {"full", "cost"})

    def finished(  # noqa: PLR0917 - as `Rule.finished`
        self, batch: object, size: int, seconds: float, waiting: int, accepted: int, now: float, *, well: bool
    ) -> None:
        """Learn how long it took, and how many have come meanwhile; not from what is no batch like others."""
        del self._running[batch]
        if batch in self._parts or not well:
            self._parts.discard(batch)
            self._cohort.forget()
            self._end_hold()
            return
        self.cost.observe(size, seconds)
        if self._last_end is not None:
            ended, accepted_then = self._last_end
            self._come += LEARNED * (accepted - accepted_then - self._come)
            self._span += LEARNED * (now - ended - self._span)
        self._last_end = now, accepted
        if self._slots == 1:
            self._cohort.finished(size, waiting, accepted, self.most(), now)
        self._end_hold()

    def allow(self, concurrency: int) -> None:
        """Keep batches apart from now on, or wait for cohorts."""
        self._slots = concurrency
        self._cohort.forget()
        self._end_hold()

    def _end_hold(self) -> None:
        self._why: Reason = "idle_slot"  # the reason of what goes when it is over, but for deadlines
        self._held = NO_HOLD  # until when, and with how many accepted items it is over

    @property
    def _rate(self) -> float:
        """Items a second; 0 when nothing is known."""
        return self._come / self._span if self._span else 0.0

    def hold(  # noqa: PLR0917 - as `Rule.hold`
        self, waiting: int, others: int, oldest: float, deadline: float, accepted: int, now: float
    ) -> float:
        """Weigh what is expected against what waits; no longer than the earliest deadline allows."""
        until = self._hold(waiting, others, oldest, accepted, now)
        self.reason = self._why
        if until > now and deadline < inf:
            latest = deadline - self.seconds_for(waiting + 1)
            if latest < until:
                self.reason = "deadline"
                return latest
        return until

    def _hold(self, waiting: int, others: int, oldest: float, accepted: int, now: float) -> float:
        until, enough = self._held
        if -inf < until <= oldest:  # what was held has left
            self._end_hold()
            until = -inf
        if others or not self.cost.known:
            self._end_hold()
            return -inf
        if until > -inf:
            if now >= until:
                return -inf
            if accepted < enough:
                return until
        if self._running:
            return self._apart(waiting, accepted, now)
        if self._slots == 1:
            return self._for_cohort(waiting, accepted, now)
        return -inf

    def _for_cohort(self, waiting: int, accepted: int, now: float) -> float:
        """Return the time until which callers may come back."""
        room = self.most() - waiting
        self._held = self._cohort.hold(waiting, accepted, self.cost, room, now)
        until, _ = self._held
        if until > -inf:
            self._why = "cohort"
        return until

    def _apart(self, waiting: int, accepted: int, now: float) -> float:
        """Return the time that lies evenly between the last start and the next end, for each free slot."""
        free = self._slots - len(self._running)
        end = max(min(self._running.values()), now)
        until = self._last_start + min((end - self._last_start) / (free + 1), self._max_hold)
        rate = self._rate
        if rate <= 0:
            return -inf
        until = min(until, end - waiting / rate)  # then fewer will come before a slot is free anyway than wait now
        if until <= now:
            return -inf
        self._why = "spacing"
        self._held = until, accepted + 1
        return until

    # What is expected

    def most(self) -> int:
        """Return the largest batch that takes half of the time of a call at most.

        If that is not even one item, the largest that takes all of it; if that is none either, there is no use in
        small batches.
        """
        if self._target is None or not self.cost.known:
            return self._most
        for time in (self._target / 2, self._target):
            rest = time - self.cost.a
            if rest >= self.cost.b:
                return int(min(rest / self.cost.b, self._most)) if self.cost.b > 0 else self._most
        return self._most

    def seconds_for(self, size: int) -> float:
        """Return the predicted time, and the margin for batches that are late."""
        return self.cost.predict(size) + self.cost.margin  # both 0 while nothing is known

    def answered_at(self, ahead: int, now: float) -> float:
        """Let the batches ahead run one after the other in each slot, and the item's own behind them."""
        if not self.cost.known:
            return -inf
        most = self.most()
        rounds, place = divmod(ahead // most, self._slots)
        busy = len(self._running) + place - self._slots  # batches that must end before its own, in the first round
        free = now
        if busy >= 0 and self._running:
            free = max(now, sorted(self._running.values())[busy])  # there is one: place < slots
        size = min(ahead % most + 1 + self._rate * (free - now), most)  # others come until it goes
        return free + rounds * self.seconds_for(most) + self.seconds_for(int(size))
