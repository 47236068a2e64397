"""Pure: `Adaptive`, the policy that learns the gain of a hold and therefore needs no tuning.

Theory of operation
===================

With one batch in flight and independent callers, no rule can be better than `Greedy` by more than 0.7 % (see
there). `Greedy` is far from the best rule in two cases, and there this rule holds a free slot for a short time:

*Cohorts.* Callers that return as soon as they have their answer split into two halves that wait for each other.
With one batch in flight, the rule waits for all of them if a trial has shown that this serves more items a second
(see `cohort`).

*Several batches in flight.* Under `Greedy` batches bunch: a batch that starts right after another one finds few
items. The rule starts a batch at the time that lies evenly between the last start and the next end. It starts the
batch earlier if fewer items are expected until that end than wait now. In the long run, with c batches in flight,
the starts are then one batch time divided by c apart.

*Deadlines.* If calls have a time limit, the rule also predicts whether it can be kept:

* A batch takes at most half of the time limit, because an item waits for one batch and then for its own.
* An item that cannot be answered in time is refused on arrival.
* An item that the next batch would make late is dropped when that batch is dispatched.
* No hold makes an item late.

Batches are not made smaller for an old item: under overload that leads to batches of one (Nexus, SOSP 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from batchers.checks import as_float, seconds
from batchers.errors import OptionError

from .base import Policy, Reason, Rule
from .cohort import NO_HOLD, Cohort
from .cost_model import CostModel

LEARNED = 0.05
"""The weight of the newest batch in the moving averages that give the arrival rate."""


@dataclass(frozen=True, slots=True)
class Adaptive(Policy):
    """Dispatch at once, unless more items are expected soon and worth the wait.

    The policy learns the service times of batches and the return times of callers (see the module), and needs no
    tuning. It does not hold items while items of several groups wait.

    A call that cannot be answered within its timeout is refused at once with DeadlineExceededError, which then has
    a `retry_after`. The timeout is that of the call, of the batcher, or `latency_target`. An idle batcher refuses
    no such call, and calls with a priority above 0 are not refused.

    max_hold
        The longest hold in seconds: a finite number, 0 or more. Default 0.025. It is counted from the end of the
        batch before, or, with several batches in flight, from the start of the batch before.
    latency_target
        Seconds in which callers want their answers: a finite number above 0. It is the timeout of calls that have
        none, in a batcher without `timeout`, and a batch takes at most half of it. Default None: a batch takes at
        most half of the batcher's `timeout`.

    Values out of range raise OptionError.
    """

    max_hold: float = 0.025
    latency_target: float | None = None

    def __post_init__(self) -> None:
        """Raise OptionError if a value is out of range."""
        object.__setattr__(self, "max_hold", seconds("max_hold", self.max_hold))
        if self.latency_target is None:
            return
        target = as_float(self.latency_target)
        if target is None or not 0 < target < inf:
            msg = (
                f"latency_target must be a finite number of seconds above 0, or None, not {self.latency_target!r}"
            )
            raise OptionError(msg)
        object.__setattr__(self, "latency_target", target)

    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:
        """Return a rule without any observations."""
        return AdaptiveRule(self.max_hold, max_batch_size, concurrency, self.latency_target or timeout)

    @property
    def default_timeout(self) -> float | None:
        """The latency target in seconds; None: no default timeout."""
        return self.latency_target


class AdaptiveRule(Rule):
    """The rule of `Adaptive` for one batcher, with its observations there."""

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
        """Initialise without observations, so that nothing is held.

        `max_hold` and `target` are seconds. `target` is the time limit of calls; None: batches are not limited.
        """
        self.cost = CostModel()
        self._max_hold = max_hold
        self._most = max_batch_size
        self._slots = concurrency
        self._target = target
        self._cohort = Cohort(max_hold)
        self._come = self._span = 0.0  # means between two ends of batches: arrivals, seconds
        self._last_end: tuple[float, int] | None = None  # its time, and the items accepted until then
        self._running: dict[object, float] = {}  # each batch, and its predicted end
        self._parts: set[object] = set()  # the running batches that are parts of a failed one
        self._last_start = -inf
        self._end_hold()

    def started(self, batch: object, arrivals: Sequence[float], reason: Reason, accepted: int, now: float) -> None:
        """Record the predicted end of the batch. With one slot, count the callers that returned."""
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
        """Learn the service time and the arrivals since the last end.

        Failed batches and parts of failed batches are ignored, because they are not representative.
        """
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
        """Space the starts of batches from now on; with one slot, wait for cohorts instead."""
        self._slots = concurrency
        self._cohort.forget()
        self._end_hold()

    def _end_hold(self) -> None:
        self._why: Reason = "idle_slot"  # the reason of the batch after the hold, without deadlines
        self._held = NO_HOLD  # end of the hold, by time and by number of accepted items

    @property
    def _rate(self) -> float:
        """The arrival rate in items per second; 0: unknown."""
        return self._come / self._span if self._span else 0.0

    def hold(  # noqa: PLR0917 - as `Rule.hold`
        self, waiting: int, others: int, oldest: float, deadline: float, accepted: int, now: float
    ) -> float:
        """Return the end of the hold, but not later than the earliest deadline allows."""
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
        if -inf < until <= oldest:  # the held items have left: all that wait arrived later
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
        """Return the time until which the slot waits for returning callers; -inf: no hold."""
        room = self.most() - waiting
        self._held = self._cohort.hold(waiting, accepted, self.cost, room, now)
        until, _ = self._held
        if until > -inf:
            self._why = "cohort"
        return until

    def _apart(self, waiting: int, accepted: int, now: float) -> float:
        """Return the start time that spaces the free slots evenly between the last start and the next end.

        -inf: start at once.
        """
        free = self._slots - len(self._running)
        end = max(min(self._running.values()), now)
        until = self._last_start + min((end - self._last_start) / (free + 1), self._max_hold)
        rate = self._rate
        if rate <= 0:
            return -inf
        until = min(until, end - waiting / rate)  # from then to the end, fewer items arrive than wait now
        if until <= now:
            return -inf
        self._why = "spacing"
        self._held = until, accepted + 1
        return until

    # Predictions

    def most(self) -> int:
        """Return the size of the largest batch that takes at most half of the time limit of a call.

        If not even one item fits, return the largest size that fits into the whole time limit. If none fits,
        return the limit of the batcher, because small batches would not help. Without a time limit, or before any
        observation, return the limit of the batcher.
        """
        if self._target is None or not self.cost.known:
            return self._most
        for time in (self._target / 2, self._target):
            rest = time - self.cost.a
            if rest >= self.cost.b:
                return int(min(rest / self.cost.b, self._most)) if self.cost.b > 0 else self._most
        return self._most

    def seconds_for(self, size: int) -> float:
        """Return the predicted service time plus the margin for late batches, in seconds; 0: unknown."""
        return self.cost.predict(size) + self.cost.margin  # both are 0 before any observation

    def answered_at(self, ahead: int, now: float) -> float:
        """Return the predicted time of the answer for an item behind `ahead` others; -inf: unknown.

        The prediction assumes that the batches ahead run one after another in each slot, and then the batch of the
        item.
        """
        if not self.cost.known:
            return -inf
        most = self.most()
        rounds, place = divmod(ahead // most, self._slots)
        busy = len(self._running) + place - self._slots  # index of the running batch that frees the slot
        free = now
        if busy >= 0 and self._running:
            free = max(now, sorted(self._running.values())[busy])  # the index exists: place < slots
        size = min(ahead % most + 1 + self._rate * (free - now), most)  # more arrive until the dispatch
        return free + rounds * self.seconds_for(most) + self.seconds_for(int(size))
