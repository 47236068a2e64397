"""`@batched` and `create_batcher`: a batcher by the name of its backend."""

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
"""The classes by their names."""


def create_batcher(
    backend: str, process_batch: BatchFunction[T, S], /, **options: Unpack[BatcherOptions]
) -> Batcher[T, S]:
    """Return a batcher of the backend "threading" or "asyncio"; `Options` says what the options mean.

    Raises OptionError, which names the known backends, for any other name.
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

    In a class it makes a method, with a batcher of its own for each object; a copy of the object gets another.
    """

    def __init__(self, function: Callable[..., Any], backend: str, options: BatcherOptions) -> None:
        """Wrap the function; the batcher starts at the first call."""
        self.__name__: str
        functools.update_wrapper(self, function)
        self._function = function
        self._backend = backend
        self._options = options
        self._key = f"@batched {next(_numbers)} {self._title()}"  # overrides and twins share a title
        self.batcher: Batcher[T, S] = create_batcher(backend, function, **options)

    def __call__(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Block until the batch with `item` has run, and return its result. Errors as `Batcher.process`.

        Raises BatcherError in a thread that runs an event loop, which must not be blocked.
        """
        if running_loop() is not None:
            msg = f"{self._title()}(...) would block the running event loop: await {self._title()}.aprocess(...)"
            raise BatcherError(msg)
        return self.batcher.call(item, timeout=timeout, priority=priority)

    async def aprocess(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`, as `Batcher.process`."""
        return await self.batcher.process(item, timeout=timeout, priority=priority)

    @overload
    def __get__(self, obj: None, owner: type) -> Batched[T, S]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> Batched[T, S]: ...
    def __get__(self, obj: object, owner: type) -> Batched[T, S]:
        """Return the method of one object; it is made once and kept in the object's `__dict__`."""
        if obj is None:
            return self
        try:
            kept = obj.__dict__
        except AttributeError:
            slots = f"{owner.__name__}.__slots__"
            msg = f"a @batched method keeps its batcher in the object's __dict__: add '__dict__' to {slots}"
            raise BatcherError(msg) from None
        # By identity: a copy of an object comes with the slots of the original. Without a lock: it would be held
        # in a fork, and when the collector runs code that comes here.
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
        """Show the function's name and its batcher."""
        return f"<batched {self._title()}: {self.batcher!r}>"

    def _title(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))


class _Slot:
    """Where an object keeps one of its batched methods. Copied or pickled with the object, it is empty."""

    def __init__(self, obj: object = None, method: Batched[Any, Any] | None = None) -> None:
        self.obj = obj
        self.method = method

    def __reduce__(self) -> tuple[type[_Slot], tuple[()]]:
        return _Slot, ()


class _Decorator(Protocol):
    """Functions of a list, or methods of a list, sync or async."""

    @overload
    def __call__(self, function: Callable[[list[T]], Awaitable[Sequence[S]]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[list[T]], Sequence[S]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[O, list[T]], Awaitable[Sequence[S]]], /) -> Batched[T, S]: ...
    @overload
    def __call__(self, function: Callable[[O, list[T]], Sequence[S]], /) -> Batched[T, S]: ...


def batched(backend: Backend = "asyncio", **options: Unpack[BatcherOptions]) -> _Decorator:
    """Turn a function (or method) of a list of items into one of a single item that batches its calls.

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
