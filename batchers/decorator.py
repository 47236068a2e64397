"""`@batched` and `create_batcher` make a batcher from the name of its backend."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from difflib import get_close_matches
from itertools import count
from types import MethodType
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, Unpack, cast, overload

from .batcher import AsyncioBatcher, Batcher, BatchFunction, ThreadingBatcher
from .drivers.loops import running_loop
from .errors import BatcherError, OptionError
from .options import BatcherOptions

T = TypeVar("T")
S = TypeVar("S")
O = TypeVar("O")  # noqa: E741 - the object of a method

Backend: TypeAlias = Literal["threading", "asyncio"]

BACKENDS: dict[str, type[Batcher[Any, Any]]] = {"threading": ThreadingBatcher, "asyncio": AsyncioBatcher}
"""The batcher class of each backend name."""


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

    In a class it is a method, and each object has a batcher of its own. A copy of an object gets another batcher.
    """

    def __init__(self, function: Callable[..., Any], backend: str, options: BatcherOptions) -> None:
        """Wrap the function and make its batcher, which starts at the first call.

        Raises OptionError for an unknown backend and for invalid options.
        """
        self.__name__: str
        functools.update_wrapper(self, function)
        self._function = function
        self._backend = backend
        self._options = options
        self._key = f"@batched {next(_numbers)} {self._title()}"  # titles are not unique: overrides, redefinitions
        self.batcher: Batcher[T, S] = create_batcher(backend, function, **options)

    def __call__(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Block until the batch with `item` has run, and return its result.

        Arguments and errors as for `Batcher.call`. Raises BatcherError in a thread that runs an event loop, which
        must not be blocked.
        """
        if running_loop() is not None:
            msg = f"{self._title()}(...) would block the running event loop: await {self._title()}.aprocess(...)"
            raise BatcherError(msg)
        return self.batcher.call(item, timeout=timeout, priority=priority)

    async def aprocess(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`. Arguments and errors as for `Batcher.process`."""
        return await self.batcher.process(item, timeout=timeout, priority=priority)

    @overload
    def __get__(self, obj: None, owner: type) -> Batched[T, S]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> Batched[T, S]: ...
    def __get__(self, obj: object, owner: type) -> Batched[T, S]:
        """Return the method of one object, or `self` on the class.

        The method is made at the first access and stored in the object's `__dict__`. Raises BatcherError for an
        object without a `__dict__`.
        """
        if obj is None:
            return self
        try:
            kept = obj.__dict__
        except AttributeError:
            slots = f"{owner.__name__}.__slots__"
            msg = f"a @batched method keeps its batcher in the object's __dict__: add '__dict__' to {slots}"
            raise BatcherError(msg) from None
        # Compare by identity: a shallow copy of an object has the slots of the original. Use no lock: a fork could
        # copy it while it is held, and the garbage collector could run code that comes here while it is held.
        key = f"{self._key} of {id(obj)}"
        slot = kept.get(key)
        if slot is None or slot.obj is not obj:
            new = _Slot(obj, Batched(MethodType(self._function, obj), self._backend, self._options))
            for name, other in list(kept.items()):
                if name.startswith(self._key) and other.obj is not obj:
                    kept.pop(name, None)
            slot = kept.setdefault(key, new)
        return cast("Batched[T, S]", slot.method)

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
    def __call__(self, function: Callable[[list[T]], Awaitable[Sequence[S]]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[list[T]], Sequence[S]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[O, list[T]], Awaitable[Sequence[S]]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[O, list[T]], Sequence[S]], /) -> Batched[T, S]: ...


def batched(backend: Backend = "asyncio", **options: Unpack[BatcherOptions]) -> _Decorator:
    """Return a decorator that turns a function (or method) of a list of items into one of a single item.

    Concurrent calls of the decorated function share batches. `backend` is "asyncio" (the default) or "threading";
    `Options` documents the options. Raises OptionError at the decoration, as `create_batcher`.

    >>> @batched("threading", max_batch_size=32)
    ... def double(numbers: list[int]) -> list[int]:
    ...     return [2 * number for number in numbers]
    >>> double(21)
    42
    >>> double.batcher.close()
    """

    def decorate(function: Callable[..., Any]) -> Batched[Any, Any]:
        return Batched(function, backend, options)

    return cast("_Decorator", decorate)
