"""From a call to a request: the user's callbacks run, and the arguments are checked, in the caller."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan
from typing import Generic, TypeVar

from batchers.core.group_queue import Request
from batchers.errors import BatcherError, OptionError
from batchers.options import Options

from .loops import Loop

T = TypeVar("T")


class RequestFactory(Generic[T]):
    """Makes the requests of one batcher."""

    __slots__ = ("_clock", "_options", "_orphaned", "_timeout", "plain")

    def __init__(self, options: Options, clock: Callable[[], float], *, orphaned: bool) -> None:
        """Keep the options. `orphaned`: the process is a fork, and the executor's workers are its parent's."""
        self._options = options
        self._clock = clock
        self._orphaned = orphaned
        self._timeout = options.chosen_policy.default_timeout if options.timeout is None else options.timeout
        # Whether a call without a timeout has nothing to ask and to check.
        asks = options.group_by is not None or options.cost is not None or self._timeout is not None
        self.plain = not (asks or orphaned)

    def make(self, item: T, timeout: float | None, priority: int, future: object, loop: Loop | None) -> Request[T]:
        """Call `group_by` and `cost`, check the arguments, and return a request that was not offered yet.

        Raises OptionError, ItemCostError, what the callbacks raise, and BatcherError in the child of a fork whose
        executor is the parent's.
        """
        if self._orphaned:
            msg = "this process was forked, and the executor's workers stayed in the parent: make a new batcher"
            raise BatcherError(msg)
        if timeout is None:
            timeout = self._timeout
        if timeout is None:
            deadline = inf
        elif isnan(timeout):
            msg = f"timeout must be a number of seconds, not {timeout!r}"
            raise OptionError(msg)
        else:
            deadline = self._clock() + timeout
        if type(priority) is not int:
            msg = f"priority must be a whole number, not {priority!r}"
            raise OptionError(msg)
        options = self._options
        group = None
        if options.group_by is not None:
            group = options.group_by(item)
            hash(group)  # here, in the caller, is the place for its TypeError
        cost = 0.0 if options.cost is None else options.cost_of(item)
        return Request(item, group, priority, cost, deadline, future, loop)
