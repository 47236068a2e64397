"""Pure: whether it is worth holding a free slot for more items, and until when.

A `Policy` is a choice of the user's: frozen, and good for any number of batchers. Each batcher makes a `Rule` of
it, which may learn. A rule is asked only while a slot is free and the batch could still grow: full batches go at
once, and a batcher that is being stopped holds nothing.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal, TypeAlias, get_args

from batchers.errors import OptionError

Reason: TypeAlias = Literal[
    "full", "cost", "idle_slot", "window", "cohort", "spacing", "deadline", "drain", "bisect"
]
"""Why a batch goes: no item more is allowed, by number or by cost; a slot was free and nothing held it; the end of
a hold (a window, for callers that were about to come back, to keep batches apart, or because an item would be late
otherwise); the batcher is being stopped; it is a part of one that failed."""

REASONS: tuple[Reason, ...] = get_args(Reason)


class Rule(ABC):
    """What a policy decides for one batcher, from what it has seen there. Times are seconds of its clock."""

    __slots__ = ("reason",)

    learns: ClassVar[bool] = False
    """Whether it wants to hear of batches, and says what it expects."""

    reason: Reason
    """Why the batch that goes now does; set by `hold` when it lets one go."""

    @abstractmethod
    def hold(  # noqa: PLR0917 - asked often; keywords cost time
        self, waiting: int, others: int, oldest: float, deadline: float, accepted: int, now: float
    ) -> float:
        """Return the time until which the next batch of a group is held; up to `now`: it goes at once.

        `waiting` items of the group, of which the oldest arrived at `oldest`; `others` are of other groups.
        `deadline` is the earliest of all; inf: there is none. `accepted` items have come since the batcher was
        made. While nothing changes, the answer stays the same.
        """

    def started(  # noqa: B027 - most learn nothing
        self, batch: object, arrivals: Sequence[float], reason: Reason, accepted: int, now: float
    ) -> None:
        """Learn that a batch of items that arrived at these times goes, and why."""

    def finished(  # noqa: B027, PLR0917 - as above
        self, batch: object, size: int, seconds: float, waiting: int, accepted: int, now: float, *, well: bool
    ) -> None:
        """Learn that a batch of so many items has ended, after so many seconds, and whether it ended well.

        `waiting` items wait, of all groups.
        """

    def allow(self, concurrency: int) -> None:  # noqa: B027 - as above
        """Learn that so many batches may be in flight from now on."""

    # What is expected; without any idea nothing is refused, and nothing dropped

    def most(self) -> int:
        """Return how many items a batch may have now, at most: not more than `max_batch_size`."""
        return sys.maxsize

    def seconds_for(self, size: int) -> float:  # noqa: ARG002 - nothing is known
        """Return how long a batch of so many items takes, at most, most of the time; 0: no idea."""
        return 0.0

    def answered_at(self, ahead: int, now: float) -> float:  # noqa: ARG002 - nothing is known
        """Return when an item that comes now, behind so many others, has its answer; -inf: no idea."""
        return -inf


class Policy(ABC):
    """Decides how long a free slot waits for a batch to grow."""

    __slots__ = ()

    @abstractmethod
    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:
        """Return what decides for one batcher with these limits."""

    @property
    def default_timeout(self) -> float | None:
        """Seconds for calls that give no timeout, in a batcher that has none."""
        return None


@dataclass(frozen=True, slots=True)
class Greedy(Policy):
    """A free slot takes what waits, at once.

    While every slot is busy items pile up, so batches grow with the load and an idle batcher answers
    a lone item without delay. For one batch in flight and independent callers no waiting rule has a
    mean latency lower by more than 0.7 % (Deb and Serfozo 1973 give the optimal control limit).
    """

    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:  # noqa: ARG002
        """Return a rule that holds nothing."""
        return _AtOnce()


class _AtOnce(Rule):
    __slots__ = ()

    def __init__(self) -> None:
        self.reason = "idle_slot"

    def hold(  # noqa: PLR0917
        self,
        waiting: int,  # noqa: ARG002
        others: int,  # noqa: ARG002
        oldest: float,  # noqa: ARG002
        deadline: float,  # noqa: ARG002
        accepted: int,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> float:
        return -inf


@dataclass(frozen=True, slots=True)
class Window(Policy):
    """A free slot waits until the batch is full or its oldest item has waited `seconds`.

    `seconds` is finite and not negative; 0 is the same as `Greedy()`. Later arrivals never push the
    time of departure.
    """

    seconds: float

    def __post_init__(self) -> None:
        """Refuse what is no span of time."""
        value: object = self.seconds
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < inf:
            msg = f"the window must be a finite number of seconds, 0 or more, not {value!r}"
            raise OptionError(msg)

    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:  # noqa: ARG002
        """Return a rule that holds each batch to the end of its oldest item's window."""
        return _ToTheEnd(self.seconds)


class _ToTheEnd(Rule):
    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self.reason = "window"
        self._seconds = seconds

    def hold(  # noqa: PLR0917
        self,
        waiting: int,  # noqa: ARG002
        others: int,  # noqa: ARG002
        oldest: float,
        deadline: float,  # noqa: ARG002
        accepted: int,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> float:
        return oldest + self._seconds
