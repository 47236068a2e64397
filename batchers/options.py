"""Validation of the options of a batcher; `Options` documents the unit, range and default of each option."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal, TypeAlias, TypedDict

from .checks import as_float, as_sizes, positive, whole_number
from .errors import ItemCostError, OptionError
from .policies.adaptive import Adaptive
from .policies.base import Policy, Rule
from .policies.greedy import Greedy
from .policies.speed_up import LIMIT
from .policies.window import Window

DEFAULT_SIZE = 256
"""Default of `max_batch_size`."""

Concurrency: TypeAlias = int | Literal["auto"]
OnError = Literal["fail", "bisect"]


class Changes(TypedDict, total=False):
    """The options that `Batcher.reconfigure` can change."""

    max_batch_size: int
    max_queue_time: float | None
    policy: Policy | None
    concurrency: Concurrency
    max_queue_size: int
    timeout: float | None
    batch_timeout: float | None


class BatcherOptions(Changes, total=False):
    """The keyword arguments of every batcher; `Options` documents them."""

    convert: Callable[[Any], Any] | None
    group_by: Callable[[Any], Hashable] | None
    cost: Callable[[Any], float] | None
    max_batch_cost: float | None
    length: Callable[[Any], float] | None
    batch_sizes: Sequence[int] | None
    on_error: OnError
    cancel_abandoned: bool
    executor: Executor | Callable[[], Executor] | None
    name: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The validated options of a batcher; an invalid value raises `OptionError`, which names the option.

    max_batch_size
        The most items in one batch: 1 or more; -1: no limit. Default 256. (Promise 4.)
    max_queue_time
        Short for `policy=Window(max_queue_time)`, in seconds: 0 or more. Default None: see `policy`.
    policy
        When a batch that is not full is dispatched: `Greedy()`, `Window(seconds)` or `Adaptive()`. Default None:
        `Greedy()`. Not together with `max_queue_time`.
    concurrency
        The most batches in flight: 1 or more; -1: no limit; "auto": as many as measurements under load show to be
        worth it, up to 8. Default 1. More than one pays only where the model runs batches in parallel (several
        devices, a pool of processes). (Promise 4.)
    max_queue_size
        The most items that wait, without those in running batches: 1 or more; -1: no limit. Default 1024.
        (Promise 8.)
    timeout
        Time limit of a call in seconds, if the call gives no `timeout`: above 0. Default None: no limit.
        (Promise 8.)
    batch_timeout
        Seconds that `process_batch` may take: above 0. After that time the callers of the batch get
        `BatchTimeoutError`, and the next batch takes its slot. An async function is cancelled. A thread cannot
        be cancelled, so up to 4 may hang. While 4 hang, no batch is started and all callers get the error at
        once, until one of the 4 returns. The result of a batch that was given up is dropped. Default None: no
        limit. (Promise 6.)
    convert
        A function of the item, whose result takes the place of the item. It is called in the caller, before
        `group_by` and `cost`, and its exceptions go to the caller. So a bad item never reaches a batch. It must be
        a plain function, not an async one. Default None: the item stays as it is. (Promise 10.)
    group_by
        A function of the item: only items of equal groups share a batch. It is called in the caller, and its
        exceptions go to the caller. Default None: all items share batches. (Promises 4 and 10.)
    cost
        A function of the item: its share of `max_batch_cost`, a finite number, 0 or more. It is called in the
        caller. Default None. Needs `max_batch_cost`. (Promises 4 and 10.)
    max_batch_cost
        The largest sum of costs in one batch: above 0. An item that costs more is refused with `ItemCostError`.
        Default None: no limit. Needs `cost`, or `length`: then it limits the number of items in a batch times the
        longest length, which is the work of a model that pads. (Promise 4.)
    length
        A function of the item: how long it is, for a model that pads each item to the longest one of its batch. A
        finite number, 0 or more, in any unit. It is called in the caller. The batcher learns how the time depends
        on lengths, and puts items together that are fast together; see `policies/lengths.py`. Items may
        overtake each other. Of each group, only the item of the highest priority that has waited longest is
        certain to be in its next batch. Not together with `cost`. Default
        None: the items of a batch are in order. (Promises 3 and 10.)
    batch_sizes
        The sizes for which a model is compiled, such as (1, 8, 32): batches have these sizes where enough items
        wait. Whole numbers, 1 or more. If the number of waiting items is no such size, the batch gets the next
        lower size, or all of them if they are more than half of the next higher one. Then the function has to pad
        the batch, as `batchers.arrays.stacked` does. The largest is `max_batch_size`. Default None: batches of
        any size. (Promise 4.)
    on_error
        What happens after a batch has failed: "fail": all its items fail; "bisect": it is halved and run again,
        until the items that fail alone are found and the others have their results. "bisect" takes at most 2n - 1
        calls for n items, so `process_batch` must be safe to call again. Default "fail". (Promise 6.)
    cancel_abandoned
        Whether an async `process_batch` is cancelled when all callers of its batch have left or expired. The next
        batch takes its slot when the function has ended. The policy learns nothing from that batch. A sync
        function cannot be cancelled. Default False: the batch runs to its end. (Promise 5.)
    executor
        The `concurrent.futures.Executor` that runs a sync `process_batch`, or a function without arguments that
        makes one. A class counts as such a function. The batcher never shuts down an executor that is an object;
        if it breaks, all calls fail and `healthy` is False. `stop` shuts down an executor that the function has
        made. If that one breaks, its running batch fails and is not sent again, and the function makes a new one.
        If the new one breaks before its first result, the batcher makes the next one after 1 second, then 2, up
        to 60. A ProcessPoolExecutor needs a function, items and results that can be pickled. Default None: threads
        of the batcher. (Promise 14.)
    name
        Shown by `repr` and in the names of threads. Default None: the name of the class.
    """

    max_batch_size: int = DEFAULT_SIZE
    max_queue_time: float | None = None
    policy: Policy | None = None
    concurrency: Concurrency = 1
    max_queue_size: int = 1024
    timeout: float | None = None
    batch_timeout: float | None = None
    convert: Callable[[Any], Any] | None = None
    group_by: Callable[[Any], Hashable] | None = None
    cost: Callable[[Any], float] | None = None
    max_batch_cost: float | None = None
    length: Callable[[Any], float] | None = None
    batch_sizes: Sequence[int] | None = None
    on_error: OnError = "fail"
    cancel_abandoned: bool = False
    executor: Executor | Callable[[], Executor] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Check each option, then the options that depend on each other; raise OptionError for the first error."""
        for option in ("max_batch_size", "max_queue_size"):
            self._set(option, whole_number(option, getattr(self, option)))
        if self.concurrency != "auto":
            self._set("concurrency", whole_number("concurrency", self.concurrency, 'or "auto"'))
        for option in ("timeout", "batch_timeout", "max_batch_cost"):
            self._set(option, positive(option, getattr(self, option)))
        _kind("policy", self.policy, (Greedy, Window, Adaptive), "Greedy(), Window(seconds) or Adaptive()")
        if not callable(self.executor):
            _kind("executor", self.executor, Executor, "a concurrent.futures.Executor, a function that makes one,")
        _kind("name", self.name, str, "a str")
        for option in ("convert", "group_by", "cost", "length"):
            _callable(option, getattr(self, option))
        _one_of("on_error", self.on_error, "fail", "bisect")
        _one_of("cancel_abandoned", self.cancel_abandoned, True, False)
        self._check_costs()
        if self.batch_sizes is not None:
            self._check_sizes(self.batch_sizes)
        if self.max_queue_time is not None:
            if self.policy is not None:
                msg = "max_queue_time is short for policy=Window(...): give one of the two"
                raise OptionError(msg)
            try:
                self._set("max_queue_time", Window(self.max_queue_time).seconds)
            except OptionError as error:
                msg = f"max_queue_time: {error}"
                raise OptionError(msg) from None

    def _check_sizes(self, given: object) -> None:
        sizes = as_sizes(given)
        if sizes is None:
            msg = f"batch_sizes must be whole numbers, 1 or more, e.g. (1, 8, 32), not {given!r}"
            raise OptionError(msg)
        if self.max_batch_size not in {DEFAULT_SIZE, sizes[-1]}:
            msg = f"the largest of batch_sizes, {sizes[-1]}, is max_batch_size: leave out {self.max_batch_size}"
            raise OptionError(msg)
        object.__setattr__(self, "batch_sizes", sizes)
        self._set("max_batch_size", sizes[-1])

    def _check_costs(self) -> None:
        if self.length is not None and self.cost is not None:
            msg = "length is the cost of an item already: give length or cost, not both"
            raise OptionError(msg)
        if self.length is None and (self.cost is None) != (self.max_batch_cost is None):
            msg = "cost and max_batch_cost need each other: give both or none"
            raise OptionError(msg)

    @classmethod
    def of(cls, function: object, **given: Any) -> Options:  # noqa: ANN401 - the options of each kind
        """Return the options that were given, with those that come with a batch function (`batchers.arrays`).

        The name of the attribute is one that no callable object of a user has by chance.
        """
        own: dict[str, Any] = getattr(function, "__batchers_options__", {})
        for option, value in own.items():
            if given[option] is not None:
                msg = f"{option} comes with the batch function, {function!r}: give it there or here, not twice"
                raise OptionError(msg)
            given[option] = value
        return cls(**given)

    def changed(self, changes: Changes) -> Options:
        """Return these options with some changed, checked as a whole.

        A `policy` replaces `max_queue_time`, and the other way round. Raises OptionError.
        """
        unknown = sorted(changes.keys() - Changes.__annotations__.keys())
        if unknown:
            known = ", ".join(Changes.__annotations__)
            msg = f"reconfigure() cannot change {', '.join(unknown)}: it can change {known}"
            raise OptionError(msg)
        new: Any = dict(changes)
        if ("policy" in new) != ("max_queue_time" in new):
            new = {"policy": None, "max_queue_time": None, **new}
        return replace(self, **new)

    def _set(self, option: str, value: float | None) -> None:
        """Store a number as the int or float that it stands for; the class is frozen for everybody else."""
        object.__setattr__(self, option, value)

    def cost_of(self, item: Any) -> float:  # noqa: ANN401 - the type is the user's
        """Return the cost or length of an item: the result of `cost` or `length`, or 0 if there is neither.

        Raises ItemCostError if it is negative, not finite, or above `max_batch_cost`.
        """
        function = self.cost or self.length
        if function is None:
            return 0.0
        return self.checked_cost(function(item))

    def checked_cost(self, found: object) -> float:
        """Return what `cost` or `length` has returned as a float. Raises ItemCostError, as `cost_of` does."""
        cost = as_float(found)
        word = "cost" if self.length is None else "length"
        if cost is None or not 0 <= cost < inf:
            msg = f"the {word} of an item must be a finite number, 0 or more, not {found!r}: correct {word}()"
            raise ItemCostError(msg)
        if self.max_batch_cost is not None and cost > self.max_batch_cost:
            its = f"costs {cost}" if self.length is None else f"has length {cost}"
            msg = f"the item {its} and max_batch_cost is {self.max_batch_cost}: split the item, or raise the limit"
            raise ItemCostError(msg)
        return float(cost)

    @property
    def batch_limit(self) -> int:
        """`max_batch_size`, but `sys.maxsize` instead of -1."""
        return _limit(self.max_batch_size)

    @property
    def slots(self) -> int:
        """`concurrency` at the start, but `sys.maxsize` instead of -1 and 1 instead of "auto"."""
        return 1 if self.concurrency == "auto" else _limit(self.concurrency)

    @property
    def most_slots(self) -> int:
        """Largest number of batches that can ever be in flight."""
        return LIMIT if self.concurrency == "auto" else self.slots

    @property
    def queue_limit(self) -> int:
        """`max_queue_size`, but `sys.maxsize` instead of -1."""
        return _limit(self.max_queue_size)

    @property
    def chosen_policy(self) -> Policy:
        """Policy that `policy` and `max_queue_time` select together; `Greedy()` if both are None."""
        if self.max_queue_time is not None:
            return Window(self.max_queue_time)
        return self.policy or Greedy()

    def rule(self) -> Rule:
        """Return a new rule of the policy, for one batcher."""
        return self.chosen_policy.rule(self.batch_limit, self.slots, self.timeout)


def _limit(value: int) -> int:
    return sys.maxsize if value == -1 else value


def _one_of(option: str, value: object, first: object, second: object) -> None:
    if not isinstance(value, type(first)) or value not in {first, second}:  # 1 is no bool, but equal to True
        msg = f"{option} must be {first!r} or {second!r}, not {value!r}"
        raise OptionError(msg)


def _callable(option: str, value: object) -> None:
    if value is not None and not callable(value):
        msg = f"{option} must be a function of one item or None, not {value!r}"
        raise OptionError(msg)


def _kind(option: str, value: object, kind: type | tuple[type, ...], allowed: str) -> None:
    if value is not None and not isinstance(value, kind):
        msg = f"{option} must be {allowed} or None, not {value!r}"
        raise OptionError(msg)
