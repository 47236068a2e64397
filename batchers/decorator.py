"""`@batched` and `create_batcher` make a batcher from the name of its backend."""

from __future__ import annotations

import concurrent.futures
import functools
import weakref
from collections.abc import Awaitable, Callable, Iterable
from difflib import get_close_matches
from itertools import count
from types import MethodType
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, Unpack, cast, overload

from .backends import BACKENDS
from .batcher import Batcher, BatchFunction
from .by_name import ATTRIBUTE, NamedFunction
from .drivers.invocation import is_async
from .drivers.loops import running_loop
from .errors import BatcherError, OptionError
from .options import BatcherOptions
from .rows import Rows
from .signatures import annotations_of, options_of, signature_of, takes_object, wrong_arguments
from .stats import BatcherStats

T = TypeVar("T")
S = TypeVar("S")
O = TypeVar("O")  # noqa: E741 - the object of a method

Backend: TypeAlias = Literal["threading", "asyncio"]


def create_batcher(
    backend: str, process_batch: BatchFunction[T, S], /, **options: Unpack[BatcherOptions]
) -> Batcher[T, S]:
    """Return a batcher of the backend "threading" or "asyncio"; `Options` documents the options.

    Raises OptionError for any other name, with the known names in the message, and for invalid options.
    """
    kind = BACKENDS.get(backend)
    if kind is None:
        close = get_close_matches(str(backend), BACKENDS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        msg = f"backend {backend!r} is not known; choose one of: {', '.join(sorted(BACKENDS))}{hint}"
        raise OptionError(msg)
    return kind(process_batch, **options)


_numbers = count(1)


class Batched(Generic[T, S]):
    """A batch function that is called with one item: `f(x)` in threads, `await f.aprocess(x)` in coroutines.

    `f.submit(x)` returns a future, `await f.process_many(items)` a list of results, `f.stats()` the counters, and
    `f.batcher` is the batcher, with `close`, `stop` and all others. An item is one object. Pass several values as
    a tuple.

    In a class it is a method, and each object has a batcher of its own. A copy of an object gets another batcher.
    `@batched` may stand over or under `staticmethod` and other decorators, and over `classmethod`. With a
    ProcessPoolExecutor, the function must be found by its name in its module, as for every pickled function.
    """

    def __init__(
        self,
        function: Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any],
        backend: str,
        options: BatcherOptions,
    ) -> None:
        """Wrap the function and make its batcher, which starts at the first call.

        Raises OptionError for an unknown backend and for invalid options.
        """
        self.__name__: str
        self.__module__: str
        self._static = isinstance(function, staticmethod)
        self._of_class = isinstance(function, classmethod)
        if isinstance(function, staticmethod | classmethod):
            function = cast("Callable[..., Any]", function.__func__)
        functools.update_wrapper(self, function)
        self._function = function
        self._backend = backend
        self._options = options
        self._key = f"@batched {next(_numbers)} {self._title()}"  # titles are not unique: overrides, redefinitions
        self._classes: weakref.WeakKeyDictionary[type, Batched[T, S]] = weakref.WeakKeyDictionary()
        self._takes_object = takes_object(function) and not self._static
        self.__signature__ = signature_of(function)
        self.__annotations__ = annotations_of(self.__signature__)
        setattr(self, ATTRIBUTE, function)
        sent = options.get("executor") is not None and not is_async(function)
        self.batcher: Batcher[T, S] = create_batcher(backend, self._by_name() if sent else function, **options)

    @overload
    def __call__(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S: ...
    @overload
    def __call__(self, obj: object, item: T, /, *, timeout: float | None = None, priority: int = 0) -> S: ...
    def __call__(self, *args: Any, **kwargs: Any) -> S:
        """Block until the batch with the item has run, and return its result: `f(item, *, timeout, priority)`.

        Arguments and errors as for `Batcher.call`. Raises BatcherError in a thread that runs an event loop, which
        must not be blocked. A method may be called with its object, too: `M.f(obj, item)`.
        """
        bound, item, options = self._bind(args, kwargs)
        if running_loop() is not None:
            msg = f"{self._title()}(...) would block the running event loop: await {self._title()}.aprocess(...)"
            raise BatcherError(msg)
        return bound.batcher.call(item, **options)

    @overload
    async def aprocess(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S: ...
    @overload
    async def aprocess(self, obj: object, item: T, /, *, timeout: float | None = None, priority: int = 0) -> S: ...
    async def aprocess(self, *args: Any, **kwargs: Any) -> S:
        """Return the result of the item. Arguments as for a call, and errors as for `Batcher.process`."""
        bound, item, options = self._bind(args, kwargs)
        return await bound.batcher.process(item, **options)

    @overload
    def submit(
        self, item: T, *, timeout: float | None = None, priority: int = 0
    ) -> concurrent.futures.Future[S]: ...
    @overload
    def submit(
        self, obj: object, item: T, /, *, timeout: float | None = None, priority: int = 0
    ) -> concurrent.futures.Future[S]: ...
    def submit(self, *args: Any, **kwargs: Any) -> concurrent.futures.Future[S]:
        """Return the future of the item's result. Arguments as for a call, and errors as for `Batcher.submit`."""
        bound, item, options = self._bind(args, kwargs)
        return bound.batcher.submit(item, **options)

    async def process_many(
        self, items: Iterable[T], *, timeout: float | None = None, priority: int = 0
    ) -> list[S]:
        """Return the results of `items`, as `Batcher.process_many`."""
        return await self.batcher.process_many(items, timeout=timeout, priority=priority)

    def stats(self) -> BatcherStats:
        """Return the counters of the batcher, as `Batcher.stats`."""
        return self.batcher.stats()

    @overload
    def __get__(self, obj: None, owner: type) -> Batched[T, S]: ...
    @overload
    def __get__(self, obj: object, owner: type | None = None) -> Batched[T, S]: ...
    def __get__(self, obj: object, owner: type | None = None) -> Batched[T, S]:
        """Return the method of one object, or `self` on the class.

        The method is made at the first access and stored in the object's `__dict__`. Raises BatcherError for an
        object without a `__dict__`.
        """
        if self._static:
            return self
        if self._of_class:
            return self._of(owner if owner is not None else type(obj))
        if obj is None:
            return self
        return self._of(obj) if isinstance(obj, type) else self._of_object(obj)

    def _of(self, owner: type) -> Batched[T, S]:
        """Return the method of a class."""
        found = self._classes.get(owner)
        if found is None:
            found = self._classes.setdefault(owner, self._method(owner))
        return found

    def _of_object(self, obj: object) -> Batched[T, S]:
        try:
            kept = obj.__dict__
        except AttributeError:
            slots = f"{type(obj).__name__}.__slots__"
            msg = f"a @batched method keeps its batcher in the object's __dict__: add '__dict__' to {slots}"
            raise BatcherError(msg) from None
        # Compare by identity: a shallow copy of an object has the slots of the original. Use no lock: a fork could
        # copy it while it is held, and the garbage collector could run code that comes here while it is held.
        key = f"{self._key} of {id(obj)}"
        slot = kept.get(key)
        if slot is None or slot.obj is not obj:
            new = _Slot(obj, self._method(obj))
            for name, other in list(kept.items()):
                if name.startswith(self._key) and other.obj is not obj:
                    kept.pop(name, None)
            slot = kept.setdefault(key, new)
        return cast("Batched[T, S]", slot.method)

    def _method(self, obj: object) -> Batched[T, S]:
        return Batched(MethodType(self._function, obj), self._backend, self._options)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Batched[T, S], Any, dict[str, Any]]:
        """Return the method that a call means, its item, and its options `timeout` and `priority`."""
        options = dict(kwargs)
        bound = self
        if self._takes_object and len(args) > 1:  # as `M.f(obj, item)`
            bound, args = self.__get__(args[0]), args[1:]
        elif not args and "item" in options:
            args = (options.pop("item"),)
        if len(args) != 1 or (self._takes_object and bound is self):
            raise TypeError(wrong_arguments(self._title(), args, options, method=self._takes_object))
        return bound, args[0], options_of(self._title(), options)

    def _by_name(self) -> Callable[[list[Any]], Any]:
        """Return the batch function in a form that another process can find: by its name."""
        function = self._function
        if isinstance(function, MethodType):
            return NamedFunction(function.__func__, function.__self__)
        return NamedFunction(function)

    def __repr__(self) -> str:
        """Return the name of the function and the `repr` of its batcher."""
        return f"<batched {self._title()}: {self.batcher!r}>"

    def _title(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))


class _Slot:
    """The place of one batched method in the `__dict__` of its object.

    A deep copy or pickle of the object has an empty slot.
    """

    def __init__(self, obj: object = None, method: Batched[Any, Any] | None = None) -> None:
        self.obj = obj
        self.method = method

    def __reduce__(self) -> tuple[type[_Slot], tuple[()]]:
        return _Slot, ()


class _Decorator(Protocol):
    """A decorator for functions of a list and methods of a list, sync or async."""

    @overload
    def __call__(self, function: Callable[[list[T]], Awaitable[Rows[S]]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[list[T]], Rows[S]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[O, list[T]], Awaitable[Rows[S]]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[O, list[T]], Rows[S]], /) -> Batched[T, S]: ...


@overload
def batched(function: Callable[[list[T]], Awaitable[Rows[S]]], /) -> Batched[T, S]: ...
@overload
def batched(function: Callable[[list[T]], Rows[S]], /) -> Batched[T, S]: ...
@overload
def batched(function: Callable[[O, list[T]], Awaitable[Rows[S]]], /) -> Batched[T, S]: ...
@overload
def batched(function: Callable[[O, list[T]], Rows[S]], /) -> Batched[T, S]: ...
@overload
def batched(backend: Backend = "asyncio", **options: Unpack[BatcherOptions]) -> _Decorator: ...
def batched(backend: Any = "asyncio", **options: Any) -> Any:
    """Return a decorator that turns a function (or method) of a list of items into one of a single item.

    Concurrent calls of the decorated function share batches. `backend` is "asyncio" (the default) or "threading";
    `Options` documents the options. Without parentheses, `@batched` means the defaults. Raises OptionError at the
    decoration, as `create_batcher`.

    >>> @batched("threading", max_batch_size=32)
    ... def double(numbers: list[int]) -> list[int]:
    ...     return [2 * number for number in numbers]
    >>> double(21)
    42
    >>> double.batcher.close()
    """
    if callable(backend) or isinstance(backend, staticmethod | classmethod):
        return Batched(backend, "asyncio", {})

    def decorate(function: Callable[..., Any]) -> Batched[Any, Any]:
        return Batched(function, backend, cast("BatcherOptions", options))

    return decorate
