"""Outcomes of the items of a batch, derived from the value that `process_batch` returned or raised.

The outcome of an item is its unchanged result, or an `Err`. The verdict on a batch is reached once. It is either a
list with one outcome for each item, or `Failed`. From `Failed`, each item gets its own exception object.

This module is pure.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from types import CoroutineType
from typing import Any, TypeAlias, TypeVar

from batchers.errors import BatchResultError

from .exceptions import own_copy, release_frames

S = TypeVar("S")

RULE = "return a list (or an array) with one result for each item, in the order of the items"


class Err:
    """The outcome of an item that failed."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        """Store the exception, which is raised in one caller only."""
        self.error = error

    def __repr__(self) -> str:
        """Return `Err(...)` with the repr of the exception."""
        return f"Err({self.error!r})"


class Failed:
    """The verdict on a batch that failed as a whole."""

    __slots__ = ("_errors", "cause")

    def __init__(self, cause: BaseException) -> None:
        """Store the exception that ended the batch, without the local variables of its frames."""
        release_frames(cause)
        self.cause = cause
        self._errors: list[Err] = []

    @property
    def divisible(self) -> bool:
        """True if a part of the batch may succeed in a new run; False after an order to exit, e.g. SystemExit."""
        return isinstance(self.cause, Exception)

    def prepare(self, count: int) -> None:
        """Copy the exception for `count` callers, so that a driver can do it without its lock.

        A copy calls methods of the class of the exception, which is the user's.
        """
        self._errors = [Err(own_copy(self.cause)) for _ in range(count)]

    def each(self, count: int) -> list[Err]:
        """Return `count` errors, each with its own copy of the exception."""
        if len(self._errors) != count:
            self.prepare(count)
        errors, self._errors = self._errors, []  # the frames of a failed batch refer to the verdict
        return errors


Outcome: TypeAlias = S | Err
Verdict: TypeAlias = list[S | Err] | Failed


_TEXTS = (str, bytes, bytearray, memoryview)
_SPECIAL = (BaseException, type, CoroutineType)
"""Types of elements that may fail an item."""
_ORDINARY = frozenset((int, float, bool, str, bytes, list, tuple, dict, type(None)))
"""Types of elements that need no further look."""


def judge(result: object, count: int) -> Verdict[Any]:
    """Return the outcomes of `count` items from `result`, the return value of `process_batch` for them.

    `Batcher.process_batch` lists the values that are valid. An element that is an exception fails its item only,
    and so does an element that is probably a mistake: an exception class, or a coroutine. Any value that is not
    valid fails the batch with `BatchResultError`.
    """
    if type(result) is not list:  # lists are the usual case, and the other checks are slow
        wrong = _not_rows(result)
        if wrong is not None:
            return _wrong(wrong)
    outcomes: list[Any] = list(result)  # type: ignore[call-overload]  # `_not_rows` has checked it
    if len(outcomes) != count:
        return _wrong(f"{len(outcomes)} results for {count} items; {RULE}")
    if count == 1 and type(outcomes[0]) in _ORDINARY:  # in less time than by a set
        return outcomes
    kinds = set(map(type, outcomes))
    if not kinds <= _ORDINARY and any(issubclass(kind, _SPECIAL) for kind in kinds):
        return [_outcome(value) for value in outcomes]
    return outcomes


def _not_rows(result: object) -> str | None:
    """Return None if the elements of `result` are its rows, or the end of the error message."""
    kind = type(result)
    shape: Any = getattr(result, "shape", None)
    advice = RULE
    if isinstance(result, tuple):
        why = ", and a tuple is taken for columns"
        advice = "return list(zip(means, stds)), or list(rows)"
    elif isinstance(result, _TEXTS):
        why = ", which is one value"
    elif hasattr(kind, "columns"):
        why = ", which iterates over its columns"
        advice = "return its rows, e.g. list(frame.itertuples(index=False))"
    elif isinstance(result, Mapping | AbstractSet | ValuesView | ItemsView):
        why = ", whose order is not the order of the items"
    elif shape is not None:  # before `keys`, because a pandas Series has keys
        if len(shape):
            return None
        why = " without dimensions, which is one value"
    elif hasattr(result, "keys"):
        why = ", whose order is not the order of the items"
    elif hasattr(kind, "__len__") and hasattr(kind, "__getitem__"):
        return None
    else:
        why = ""
    return f"{'None' if result is None else f'a {kind.__name__}'}{why}; {advice}"


def _outcome(value: Any) -> object:  # noqa: ANN401 - any element
    """Return the outcome of one item."""
    kind = type(value)  # not `isinstance`, which believes what `__class__` of a mock says
    if issubclass(kind, BaseException):
        release_frames(value)
        return Err(own_copy(value))
    if issubclass(kind, type) and issubclass(value, BaseException):
        msg = f"the result of this item is the class {value.__name__}: return an exception, {value.__name__}(...)"
        return Err(BatchResultError(msg))
    if issubclass(kind, CoroutineType):
        value.close()
        msg = f"the result of this item is a coroutine, {value.__qualname__}(...): await it in process_batch"
        return Err(BatchResultError(msg))
    return value


def _wrong(what: str) -> Failed:
    return Failed(BatchResultError(f"process_batch returned {what}"))
