"""Creation of requests: in the caller, the arguments are checked and the callbacks of the user run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, isnan
from types import CoroutineType
from typing import Generic, TypeVar

from batchers.checks import as_float, as_int
from batchers.core.group_queue import Request
from batchers.errors import BatcherError, OptionError, note_index
from batchers.options import Options

from .delivery import GatheredResults
from .loops import Loop

T = TypeVar("T")


class RequestFactory(Generic[T]):
    """Factory for the requests of one batcher."""

    __slots__ = ("_clock", "_options", "_orphaned", "_timeout", "plain")

    def __init__(self, options: Options, clock: Callable[[], float], *, orphaned: bool) -> None:
        """Store the options and the clock of the driver.

        `orphaned` means that this process was forked, and that the executor's workers belong to the parent.
        """
        self._options = options
        self._clock = clock
        self._orphaned = orphaned
        self._timeout = options.chosen_policy.default_timeout if options.timeout is None else options.timeout
        # True if a call without a timeout needs no callback, no deadline and no check but that of its priority.
        callbacks = (options.convert, options.group_by, options.cost, options.length)
        self.plain = callbacks == (None,) * 4 and self._timeout is None and not orphaned

    def changed(self, options: Options) -> RequestFactory[T]:
        """Return a factory with other options."""
        return RequestFactory(options, self._clock, orphaned=self._orphaned)

    def make_all(
        self,
        items: Iterable[T],
        timeout: float | None,
        priority: int,
        gathered: GatheredResults,
        loop: Loop | None,
    ) -> list[Request[T]]:
        """Return the requests of one call with several items; an error of one item has a note with its index."""
        requests: list[Request[T]] = []
        for item in items:
            try:
                requests.append(self.make(item, timeout, priority, gathered.slot(), loop))
            except OptionError:
                raise
            except Exception as error:
                note_index(error, len(requests))
                raise
        return requests

    def make(  # noqa: PLR0917 - as `Request`
        self,
        item: T,
        timeout: float | None,
        priority: int,
        future: object,
        loop: Loop | None,
        known_cost: object = None,
    ) -> Request[T]:
        """Call `convert`, `group_by`, `cost` and `length`, check the arguments, and return a request to offer.

        `timeout` is in seconds; None selects the default of the batcher or of its policy. `known_cost` is what
        `cost` or `length` has returned in another process; None: they are called here.

        The method raises these errors:

        - OptionError: `timeout` is NaN, `priority` is not an int, or `convert` or `group_by` is an async function.
        - ItemCostError: the cost or length of the item is out of range.
        - TypeError: the group cannot be hashed.
        - BatcherError: this process is the child of a fork, and the executor belongs to the parent.
        - Any error of `convert`, `group_by`, `cost` or `length`.
        """
        if self._orphaned:
            msg = "this process was forked, and the executor's workers stayed in the parent: make a new batcher"
            raise BatcherError(msg)
        if timeout is None:
            timeout = self._timeout
        if timeout is None:
            deadline = inf
        else:
            seconds = as_float(timeout)
            if seconds is None or isnan(seconds):
                msg = f"timeout must be a number of seconds, not {timeout!r}"
                raise OptionError(msg)
            deadline = self._clock() + seconds
        rank = as_int(priority)
        if rank is None:
            msg = f"priority must be a whole number, not {priority!r}"
            raise OptionError(msg)
        options = self._options
        if options.convert is not None:
            item = options.convert(item)
            if type(item) is CoroutineType:
                _refuse_coroutine("convert", item)
        group = None
        if options.group_by is not None:
            group = options.group_by(item)
            _refuse_coroutine("group_by", group)
            _check_hashable(group)  # raises its TypeError here, in the caller
        if known_cost is not None:
            cost = options.checked_cost(known_cost)
        else:
            cost = 0.0 if options.cost is None and options.length is None else options.cost_of(item)
        return Request(item, group, rank, cost, deadline, future, loop)


def _refuse_coroutine(option: str, result: object) -> None:
    if isinstance(result, CoroutineType):
        result.close()
        msg = f"{option} returned a coroutine, {result.__qualname__}(...): give a plain function, not an async one"
        raise OptionError(msg)


def _check_hashable(group: object) -> None:
    try:
        hash(group)
    except TypeError as error:
        msg = f"group_by returned {group!r}: {error}; return something hashable, such as a str, an int or a tuple"
        raise TypeError(msg) from error
