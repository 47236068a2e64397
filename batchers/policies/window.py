"""Pure: `Window`, the policy that holds a batch for a fixed time."""

from __future__ import annotations

from dataclasses import dataclass

from batchers.checks import seconds

from .base import Policy, Rule


@dataclass(frozen=True, slots=True)
class Window(Policy):
    """Hold a batch until it is full or its oldest item has waited `seconds`.

    `seconds` is a finite number, 0 or more; any other value raises OptionError. 0 is the same as `Greedy()`. Later
    arrivals never postpone the dispatch.
    """

    seconds: float

    def __post_init__(self) -> None:
        """Raise OptionError if `seconds` is not a finite number, 0 or more."""
        object.__setattr__(self, "seconds", seconds("the window", self.seconds))

    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:  # noqa: ARG002
        """Return a rule that holds each batch until the window of its oldest item ends."""
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
