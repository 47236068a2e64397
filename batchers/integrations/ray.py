"""Batches in the replicas of Ray Serve; needs ray[serve].

::

    from ray import serve
    from batchers.integrations.ray import Replica, batch

    @serve.deployment(max_ongoing_requests=64)
    class Model(Replica):
        @batch(max_batch_size=32)               # was: @serve.batch(max_batch_size=32)
        async def predict(self, items: list[float]) -> list[float]: ...

        async def __call__(self, request):
            return await self.predict(float(await request.body()))

`batch` has the arguments and setters of `serve.batch`. Each object has a queue of its own, and a batch is formed
when it can run, not before. Every call ends, each caller gets its own exception, and calls for different
multiplexed models never share a batch. `Replica` is optional: it connects the batchers of a deployment with Ray's
health checks, its autoscaling, and `user_config`. A deployment has batchers; it is none.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar, overload

from batchers import AsyncioBatcher, BatcherStats, OptionError

try:
    from ray import serve
    from ray.serve import metrics
    from ray.serve.config import AutoscalingContext
    from ray.serve.exceptions import RayServeException
except ModuleNotFoundError as error:
    msg = "batchers.integrations.ray needs ray[serve]: install the extra `ray`"
    raise ModuleNotFoundError(msg, name=error.name) from error

logger = logging.getLogger("ray.serve")

T = TypeVar("T")
S = TypeVar("S")

_KEY = "@batchers.integrations.ray "

_RENAMED = {
    "max_batch_size": "max_batch_size",
    "batch_wait_timeout_s": "max_queue_time",
    "max_concurrent_batches": "concurrency",
}
"""Arguments of `serve.batch`, and the options of a batcher that they are."""


class _Call(NamedTuple):
    """An item, and the multiplexed model that its request is for, with the context that says so."""

    item: Any
    model: str
    context: contextvars.Context | None


class Handler(Generic[T, S]):
    """A batched function, or a batched method of one object: `await handler(item)` returns the item's result."""

    def __init__(
        self, function: Callable[[list[T]], Any], options: dict[str, Any], size: Callable[[list[T]], int] | None
    ) -> None:
        """Make the batcher, which starts at the first call. Raises OptionError."""
        self._function = function
        self._size = size
        self._max_batch_size: int = options["max_batch_size"]
        self._wait: float = options["max_queue_time"]
        self._metrics: _Metrics | None = None
        self._has_looked = False
        if size is not None:
            options = {**options, "max_batch_size": -1, "cost": self._cost, "max_batch_cost": 1.0}
        name = getattr(function, "__qualname__", "batch")
        self.batcher: AsyncioBatcher[_Call, S] = AsyncioBatcher(
            self._run, convert=_call, group_by=lambda call: call.model, name=name, **options
        )

    async def __call__(self, item: T) -> S:
        """Return the result of `item`; raises the errors of `Batcher.process`."""
        if not self._has_looked:
            self._look()
        given: Any = item  # `convert` makes a _Call of it
        return await self.batcher.process(given)

    def _look(self) -> None:
        """In a replica, make the metrics, and warn if Ray lets too few calls in for a full batch."""
        self._has_looked = True
        try:
            context = serve.get_replica_context()
        except RayServeException:
            return  # outside of a replica
        self._metrics = _Metrics(self.batcher.name)
        limit = getattr(getattr(context, "_deployment_config", None), "max_ongoing_requests", math.inf)
        if limit < self._max_batch_size:
            logger.warning(
                "max_ongoing_requests of %s is %s, so its batches never reach max_batch_size=%s: raise it to at "
                "least twice as many, so that a batch can form while one runs",
                context.deployment,
                limit,
                self._max_batch_size,
            )

    def _cost(self, call: _Call) -> float:
        size: Any = self._size
        return min(max(float(size([call.item])) / self._max_batch_size, 0.0), 1.0)

    def _count(self) -> None:
        """Bring the metrics up to date: when a batch starts, and when its calls have ended."""
        if self._metrics is not None:
            self._metrics.update(self.batcher.stats())

    async def _run(self, calls: list[_Call]) -> Any:  # noqa: ANN401 - rows
        try:
            return await self._evaluate(calls)
        finally:
            asyncio.get_running_loop().call_soon(self._count)  # its calls end in this turn of the loop

    async def _evaluate(self, calls: list[_Call]) -> Any:  # noqa: ANN401 - rows
        context, items = calls[0].context, [call.item for call in calls]
        if self._metrics is not None:
            self._metrics.started(len(items))
            self._count()
        if context is None:
            found = self._function(items)
            return await found if isinstance(found, Awaitable) else found
        # So that `serve.get_multiplexed_model_id` says in the function what it says in its callers.
        found = context.copy().run(self._function, items)
        if not inspect.iscoroutine(found):
            return found
        return await asyncio.create_task(found, context=context.copy())

    # As of `serve.batch`

    def set_max_batch_size(self, new_max_batch_size: int) -> None:
        """Change the largest batch. Raises OptionError."""
        self.reconfigure(max_batch_size=new_max_batch_size)

    def set_batch_wait_timeout_s(self, new_batch_wait_timeout_s: float) -> None:
        """Change how long a batch waits for more items while it could run. Raises OptionError."""
        self.reconfigure(batch_wait_timeout_s=new_batch_wait_timeout_s)

    def get_max_batch_size(self) -> int:
        """Return the largest batch."""
        return self._max_batch_size

    def get_batch_wait_timeout_s(self) -> float:
        """Return the seconds that a batch waits for more items."""
        return self._wait

    _get_max_batch_size = get_max_batch_size
    _get_batch_wait_timeout_s = get_batch_wait_timeout_s

    def reconfigure(self, **changes: Any) -> None:  # noqa: ANN401 - of each option
        """Change limits while calls wait and run: arguments of `serve.batch`, or what `Batcher.reconfigure` takes.

        Raises OptionError, and changes nothing then.
        """
        named: Any = {_RENAMED.get(name, name): value for name, value in changes.items()}
        size = named.get("max_batch_size", self._max_batch_size)
        if self._size is not None and "max_batch_size" in named:
            del named["max_batch_size"]
            if not isinstance(size, int) or size < 1:
                msg = f"max_batch_size must be a whole number, 1 or more, not {size!r}"
                raise OptionError(msg)
        self.batcher.reconfigure(**named)
        self._max_batch_size = size
        self._wait = named.get("max_queue_time", self._wait)

    def stats(self) -> BatcherStats:
        """Return the counters of the batcher."""
        return self.batcher.stats()


class Batch(Generic[T, S]):
    """What `batch` makes of a function or method; each object has a handler of its own."""

    def __init__(
        self,
        function: Callable[..., Any],
        options: dict[str, Any],
        size: Callable[[list[T]], int] | None,
    ) -> None:
        """Store the function; its batcher is made in the replica, because it cannot be sent there."""
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            msg = (
                f"{function.__qualname__} is a generator, and the results of a batch are one list: return a list, "
                "or keep @serve.batch for streaming"
            )
            raise OptionError(msg)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self._options, self._size = options, size
        self._handler: Handler[T, S] | None = None  # of a plain function

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name of the method: each has a place of its own in its object."""
        self._key = f"{_KEY}{owner.__qualname__}.{name}"

    @overload
    def __get__(self, obj: None, owner: type) -> Batch[T, S]: ...
    @overload
    def __get__(self, obj: object, owner: type | None = None) -> Handler[T, S]: ...
    def __get__(self, obj: object, owner: type | None = None) -> Batch[T, S] | Handler[T, S]:
        """Return the handler of an object, made at the first access."""
        if obj is None:
            return self
        kept: dict[str, Any] = vars(obj)
        if self._key not in kept:
            kept.setdefault(
                self._key, Handler(self.__wrapped__.__get__(obj, owner), dict(self._options), self._size)
            )
        found: Handler[T, S] = kept[self._key]
        return found

    def _of_function(self) -> Handler[T, S]:
        if self._handler is None:
            self._handler = Handler(self.__wrapped__, dict(self._options), self._size)
        return self._handler

    async def __call__(self, item: T) -> S:
        """Return the result of an item of a plain function."""
        return await self._of_function()(item)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the handler
        """Return an attribute of the handler of a plain function."""
        if name.startswith("__") or name in {"_key", "_handler"}:
            raise AttributeError(name)
        return getattr(self._of_function(), name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the batcher out of what is sent to a replica."""
        return _restored, (self.__wrapped__, self._options, self._size, self.__dict__.get("_key"))


def _restored(
    function: Callable[..., Any],
    options: dict[str, Any],
    size: Callable[[list[Any]], int] | None,
    key: str | None,
) -> Batch[Any, Any]:
    found: Batch[Any, Any] = Batch(function, options, size)
    if key is not None:
        vars(found)["_key"] = key
    return found


def _call(item: Any) -> _Call:  # noqa: ANN401 - the user's
    model = serve.get_multiplexed_model_id()
    return _Call(item, model, contextvars.copy_context() if model else None)


def batch(
    _func: Callable[..., Any] | None = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
    **options: Any,  # noqa: ANN401 - of each option
) -> Any:  # noqa: ANN401 - a Batch, or a decorator
    """Do what `ray.serve.batch` does: turn a function of a list of items into one of a single item.

    max_batch_size, batch_wait_timeout_s, max_concurrent_batches
        As for `serve.batch`, with its defaults. The wait is for a batch that could run; while another one runs,
        items gather in any case. 0 is right for most models.
    batch_size_fn
        The size of a list of items. It is called with each item alone, in its caller, and sizes are added.
    options
        More options of a batcher: `timeout`, `max_queue_size`, `on_error`, ... `policy` takes the place of
        `batch_wait_timeout_s`.

    The function may be sync, too; then it runs in a thread. Raises OptionError for generators and wrong values.
    """
    given: dict[str, Any] = {"max_batch_size": max_batch_size, "concurrency": max_concurrent_batches, **options}
    given.setdefault("max_queue_time", None if options.get("policy") is not None else batch_wait_timeout_s)

    def decorate(function: Callable[..., Any]) -> Batch[Any, Any]:
        return Batch(function, given, batch_size_fn)

    return decorate if _func is None else decorate(_func)


def handlers_of(replica: object) -> dict[str, Handler[Any, Any]]:
    """Return the handlers of the batched methods of an object, by the names of the methods."""
    found: dict[str, Handler[Any, Any]] = {}
    for kind in type(replica).__mro__:
        for name, value in vars(kind).items():
            if isinstance(value, Batch) and name not in found:
                found[name] = value.__get__(replica, kind)
    return found


class Replica:
    """A base class for deployments with batched methods; all of it can be overridden, and called from there."""

    def check_health(self) -> None:
        """Raise RuntimeError if only a new replica helps; Ray calls it, and replaces the replica then."""
        for name, handler in handlers_of(self).items():
            if not handler.batcher.healthy:
                msg = f"the batcher of {name} starts no batches any more: {handler.batcher!r}"
                raise RuntimeError(msg)

    def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Change limits: `{"predict": {"max_batch_size": 64}}`, or without the name for all batched methods.

        Ray calls it at the start, and when `user_config` has changed. Raises OptionError.
        """
        handlers = handlers_of(self)
        config = user_config or {}
        by_name = {name: changes for name, changes in config.items() if name in handlers}
        for_all = {name: value for name, value in config.items() if name not in handlers}
        for name, handler in handlers.items():
            changes = {**for_all, **by_name.get(name, {})}
            if changes:
                handler.reconfigure(**changes)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `queue_policy` reads: the items that wait and run in this replica."""
        found = [handler.stats() for handler in handlers_of(self).values()]
        return {
            "batcher_queued": float(sum(each.queued for each in found)),
            "batcher_running": float(sum(each.running for each in found)),
        }


def queue_policy(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """Return the number of replicas for the items that wait and run: an autoscaling policy of Ray.

    It needs `Replica`. Each replica is to have `target_ongoing_requests` of the autoscaling configuration. Use it
    by `autoscaling_config={"policy": {"policy_function": queue_policy}, ...}`.
    """
    found = context.aggregated_metrics or {}
    items = sum(sum(found.get(name, {}).values()) for name in ("batcher_queued", "batcher_running"))
    target = getattr(context.config, "target_ongoing_requests", None) or 1.0
    wanted = math.ceil(items / target)
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(least, min(wanted, most)), {}


class _Metrics:
    """The metrics of one batcher, in those of Ray."""

    def __init__(self, name: str) -> None:
        tags = ("batcher",)
        self._tags = {"batcher": name}
        self._queued = metrics.Gauge("batcher_queued_items", description="Items that wait.", tag_keys=tags)
        self._running = metrics.Gauge(
            "batcher_running_items", description="Items in running batches.", tag_keys=tags
        )
        self._size = metrics.Histogram(
            "batcher_batch_size_items",
            description="Items in a batch.",
            boundaries=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
            tag_keys=tags,
        )
        both: Any = ("batcher", "outcome")  # Ray's annotation says one
        self._items = metrics.Counter("batcher_items", description="Items by their outcome.", tag_keys=both)
        self._counted: dict[str, int] = {}

    def started(self, size: int) -> None:
        """Note the start of a batch."""
        self._size.observe(size, tags=self._tags)

    def update(self, stats: BatcherStats) -> None:
        """Set gauges and counters."""
        self._queued.set(stats.queued, tags=self._tags)
        self._running.set(stats.running, tags=self._tags)
        for outcome in ("completed", "failed", "cancelled", "expired", "stopped", "rejected"):
            count: int = getattr(stats, outcome)
            more = count - self._counted.get(outcome, 0)
            if more > 0:
                self._items.inc(more, tags={**self._tags, "outcome": outcome})
                self._counted[outcome] = count
