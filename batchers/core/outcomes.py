"""Outcomes of the items of a batch, derived from the value that `process_batch` returned or raised.

The outcome of an item is its unchanged result, or an `Err`. The verdict on a batch is reached once. It is either a
list with one outcome for each item, or `Failed`. From `Failed`, each item gets its own exception object.

This module is pure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sized
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias, TypeVar

from batchers.errors import FOR_NO_CALLER, BatchFunctionError, BatchResultError

S = TypeVar("S")

_NO_SEQUENCES = (str, bytes, bytearray, memoryview, Mapping, AbstractSet)


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

    __slots__ = ("cause",)

    def __init__(self, cause: BaseException) -> None:
        """Store the exception that ended the batch."""
        self.cause = cause

    @property
    def divisible(self) -> bool:
        """True if a part of the batch may succeed in a new run; False after an order to exit, e.g. SystemExit."""
        return isinstance(self.cause, Exception)

    def each(self, count: int) -> list[Err]:
        """Return `count` errors, each with its own copy of the exception."""
        return [Err(own_copy(self.cause)) for _ in range(count)]


Outcome: TypeAlias = S | Err
Verdict: TypeAlias = list[S | Err] | Failed


def judge(result: object, count: int) -> Verdict[Any]:
    """Return the outcomes of `count` items from `result`, the return value of `process_batch` for them.

    Valid results are lists, tuples, arrays and other sized collections of `count` elements. An element
    that is an exception fails its item only. Any other value fails the batch with `BatchResultError`:

    - None;
    - text (str, bytes, bytearray, memoryview);
    - mappings and sets, because their order is not the order of the items;
    - generators;
    - scalars;
    - a collection with more or fewer than `count` elements.
    """
    if type(result) is not list:  # lists are the usual case, and isinstance is slow with abstract base classes
        if isinstance(result, _NO_SEQUENCES) or hasattr(result, "keys"):
            return _wrong(f"a {type(result).__name__}, which is no sequence of results")
        if not (isinstance(result, Sized) and isinstance(result, Iterable)) or getattr(result, "ndim", 1) == 0:
            return _wrong(f"{'None' if result is None else 'a ' + type(result).__name__}")
    outcomes = [Err(own_copy(value)) if isinstance(value, BaseException) else value for value in result]
    if len(outcomes) != count:
        return _wrong(f"{len(outcomes)} results for {count} items")
    return outcomes


def own_copy(error: BaseException) -> Exception:
    """Return a new exception for one caller: same type and contents, with `error` as its cause.

    An exception object that several callers raise would collect the tracebacks and notes of all of them. The copy
    is shallow, except that the members of an exception group are copied too. An exception that would do harm in a
    caller is wrapped in `BatchFunctionError`, whose docstring lists these exceptions. An exception that cannot be
    copied is wrapped too. The copy of a `BatchFunctionError` keeps the cause of the original, if there is one.
    """
    if isinstance(error, BatchFunctionError):  # already wrapped, for example before it passed through an executor
        own = _clone(error)
        own.__cause__ = error.__cause__ or error
        return own
    if isinstance(error, Exception) and not isinstance(error, FOR_NO_CALLER):
        own = _clone(error)
    else:
        own = BatchFunctionError(
            f"process_batch raised {type(error).__name__}, which is not passed on to callers as it is; "
            "raise an ordinary exception instead"
        )
    own.__cause__ = error
    return own


def _clone(error: Exception) -> Exception:
    kind = type(error)
    for way in (_regrouped, copy.copy, _without_constructor):
        try:
            clone = way(error)
            if type(clone) is kind and clone is not error:
                clone.args = error.args  # the constructor may have formatted a message that was already formatted
                _copy_slots(error, clone)
                if hasattr(error, "__notes__"):
                    clone.__notes__ = list(error.__notes__)
                return clone.with_traceback(None)
        except BaseException:  # noqa: BLE001, S112 - a user's class may raise anything here; try the next method
            continue
    return BatchFunctionError(f"process_batch raised {kind.__name__}, which cannot be copied")


def _regrouped(error: Exception) -> Exception:
    """Return a group with copies of its members; return any other exception itself, which `_clone` rejects."""
    if not isinstance(error, ExceptionGroup):
        return error
    members = [own_copy(member) for member in error.exceptions]
    clone: Exception = error.derive(members)
    if type(clone) is not type(error):  # the class does not override `derive` to return its own type
        clone = type(error).__new__(type(error), error.message, members)
    clone.__dict__.update(error.__dict__)
    return clone


def _copy_slots(error: Exception, clone: Exception) -> None:
    for kind in type(error).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            hidden = name.startswith("__") and not name.endswith("__")
            mangled = f"_{kind.__name__.lstrip('_')}{name}" if hidden else name
            if name != "__weakref__" and hasattr(error, mangled):
                setattr(clone, mangled, getattr(error, mangled))


def _without_constructor(error: Exception) -> Exception:
    """Return a copy made without `__init__`, for constructors whose arguments differ from `args`."""
    clone = type(error).__new__(type(error), *error.args)
    clone.args = error.args
    clone.__dict__.update(error.__dict__)
    return clone


def _wrong(what: str) -> Failed:
    return Failed(
        BatchResultError(
            f"process_batch returned {what}; return a list (or tuple, or array) with one result for each "
            "item, in the order of the items"
        )
    )
