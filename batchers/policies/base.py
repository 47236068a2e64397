"""Pure: the interface of policies, and the policies `Greedy` and `Window`.

A `Policy` is chosen by the user. It is frozen, and any number of batchers may share it. Each batcher makes a
`Rule` from it, which may learn. The rule decides whether a free slot waits for more items, and until when. The
core asks it only while a slot is free and the batch could still grow. Full batches are dispatched at once, and a
batcher that is being stopped holds nothing.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf
from typing import ClassVar, Literal, TypeAlias, get_args

Reason: TypeAlias = Literal[
    "full", "cost", "length", "idle_slot", "window", "cohort", "spacing", "deadline", "drain", "bisect"
]
"""The reason for the dispatch of a batch.

full        the batch has `max_batch_size` items, or the most that the rule allows
cost        the batch has reached `max_batch_cost`
length      the other items that waited are so much longer or shorter that another batch is faster for them
idle_slot   a slot was free and nothing held the batch
window      the hold of a window ended
cohort      the hold for callers that were expected to return soon ended
spacing     the hold that keeps the starts of batches apart ended
deadline    a longer hold would have made an item late
drain       the batcher is being stopped
bisect      the batch is a part of a failed one
"""

REASONS: tuple[Reason, ...] = get_args(Reason)


class Rule(ABC):
    """The decisions of a policy for one batcher, from the observations there. Times are seconds of its clock.

    learns
        Whether the rule observes batches and makes predictions. If True, the core calls `started` and `finished`,
        and uses `most`, `seconds_for` and `answered_at`. Default False.
    reason
        The reason of the next dispatch. `hold` sets it when it releases a batch.
    """

    __slots__ = ("reason",)

    learns: ClassVar[bool] = False
    reason: Reason

    @abstractmethod
    def hold(  # noqa: PLR0917 - called often, and keyword arguments cost time
        self, waiting: int, others: int, oldest: float, deadline: float, accepted: int, now: float
    ) -> float:
        """Return the time until which the next batch of a group is held.

        A time up to `now` means: dispatch at once. The answer stays the same while nothing changes.

        waiting
            Items of the group that wait.
        others
            Items of other groups that wait.
        oldest
            Arrival time of the oldest item of the group.
        deadline
            The earliest deadline of all items; inf: there is none.
        accepted
            Items accepted since the batcher was made.
        """

    def started(  # noqa: B027 - most rules do not learn
        self, batch: object, arrivals: Sequence[float], reason: Reason, accepted: int, now: float
    ) -> None:
        """Observe the start of a batch, with the arrival times of its items and the reason of its dispatch."""

    def finished(  # noqa: B027, PLR0917 - as above
        self, batch: object, size: int, seconds: float, waiting: int, accepted: int, now: float, *, well: bool
    ) -> None:
        """Observe the end of a batch of `size` items after `seconds` seconds.

        `waiting` is the number of items that wait, of all groups. `well` is False for a batch that failed or was
        given up.
        """

    def allow(self, concurrency: int) -> None:  # noqa: B027 - as above
        """Set the number of batches that may be in flight from now on."""

    # Predictions. The defaults stand for no knowledge: then the core refuses nothing and drops nothing.

    def most(self) -> int:
        """Return the largest number of items that a batch may have now.

        A rule that learns must return at most `max_batch_size`. The core does not ask the others.
        """
        return sys.maxsize

    def seconds_for(self, size: int) -> float:  # noqa: ARG002 - no knowledge
        """Return the seconds that most batches of `size` items do not exceed; 0: unknown."""
        return 0.0

    def answered_at(self, ahead: int, now: float) -> float:  # noqa: ARG002 - no knowledge
        """Return the time of the answer for an item that arrives now behind `ahead` others; -inf: unknown."""
        return -inf


class Policy(ABC):
    """The choice of how long a free slot waits for a batch to grow."""

    __slots__ = ()

    @abstractmethod
    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:
        """Return a new rule for one batcher.

        `max_batch_size` and `concurrency` are the limits of the batcher (a very large number: no limit). `timeout`
        is its default timeout in seconds; None: no limit.
        """

    @property
    def default_timeout(self) -> float | None:
        """The timeout in seconds of calls that have none, in a batcher without `timeout`; None: no limit."""
        return None
