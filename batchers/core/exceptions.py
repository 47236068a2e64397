"""Copies of exceptions: each caller gets its own, and no copy refers to the items of other callers.

The module is pure.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from types import BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType
from typing import Any

from batchers.errors import FOR_NO_CALLER, BatchFunctionError

_SET_ELSEWHERE = ("args", "__dict__", "__weakref__", "__traceback__", "__context__", "__cause__")
_set_cause = BaseException.__dict__["__cause__"].__set__
_set_args = BaseException.__dict__["args"].__set__


def own_copy(error: BaseException) -> Exception:
    """Return a new exception for one caller: same type, attributes and text, with `error` as its cause.

    An exception object that several callers raise would collect the tracebacks and notes of all of them. The copy
    is shallow, except that the members of an exception group are copied too. The constructor of a user's class
    does not run again. An exception that would do harm in a caller is wrapped in `BatchFunctionError`, whose
    docstring lists these exceptions. An exception that cannot be copied is wrapped too. The copy of a
    `BatchFunctionError` keeps the cause of the original, if there is one.
    """
    cause = error
    if isinstance(error, BatchFunctionError):  # already wrapped, for example before it passed through an executor
        cause = error.__cause__ or error
        own = _copied(error)
    elif isinstance(error, Exception) and not isinstance(error, FOR_NO_CALLER):
        own = _copied(error)
    else:
        own = BatchFunctionError(
            f"process_batch raised {type(error).__name__}, which is not passed on to callers as it is; "
            "raise an ordinary exception instead"
        )
    _set_cause(own, cause)  # not by assignment: the class may be frozen
    return own


def text_of(error: BaseException) -> str:
    """Return `str(error)`, or a placeholder if the class of the error fails to format it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the method is the user's
        return "an error that cannot be shown"


def release_frames(error: BaseException) -> None:
    """Clear the local variables of all frames that have ended with this exception, or with one that it refers to.

    Otherwise, everybody who holds the exception holds the whole batch. File, line and text of the traceback stay.
    Frames that still run are left alone, and so are frames of suspended generators and coroutines, because
    clearing would end them. CPython tracks a frame for garbage collection from its end only.
    """
    seen: set[int] = set()
    left = [error]
    while left:
        current = left.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        trace = current.__traceback__
        while trace is not None:
            if gc.is_tracked(trace.tb_frame):
                with suppress(RuntimeError):  # it has not ended, on another implementation of Python
                    trace.tb_frame.clear()
            trace = trace.tb_next
        left += [other for other in (current.__cause__, current.__context__) if other is not None]
        if isinstance(current, BaseExceptionGroup):
            left += current.exceptions


def _copied(error: Exception) -> Exception:
    try:
        return _copy(error)
    except BaseException as failure:  # noqa: BLE001 - a user's class may raise anything here
        return BatchFunctionError(
            f"process_batch raised {type(error).__name__}, which cannot be copied "
            f"({type(failure).__name__}: {text_of(failure)}): {text_of(error)}"
        )


def _copy(error: Exception) -> Exception:
    """Return a copy made with the constructors of built-in classes only."""
    kind = type(error)
    args: Any = error.args
    if group := isinstance(error, ExceptionGroup):
        args = error.message, [own_copy(member) for member in error.exceptions]
    new = next(_builtin(kind, "__new__", BuiltinFunctionType))
    clone: Exception = new(kind, *args)
    if type(clone) is not kind:  # OSError(2, "") is a FileNotFoundError; this one has got its errno later
        clone = new(kind)
    if not group:
        with suppress(TypeError):  # the arguments of the user's class are others; its attributes follow
            next(_builtin(kind, "__init__", WrapperDescriptorType))(clone, *args)
    _set_args(clone, error.args)
    for base in kind.__mro__:
        for name, descriptor in vars(base).items():
            if isinstance(descriptor, MemberDescriptorType | GetSetDescriptorType) and name not in _SET_ELSEWHERE:
                _copy_attribute(descriptor, error, clone)
    if (attributes := getattr(error, "__dict__", None)) is not None:
        vars(clone).update(attributes)
        if "__notes__" in attributes:
            vars(clone)["__notes__"] = list(attributes["__notes__"])
    return clone


def _copy_attribute(descriptor: Any, error: Exception, clone: Exception) -> None:  # noqa: ANN401 - of several types
    with suppress(AttributeError, TypeError):  # it has no value, or it cannot be set
        value = descriptor.__get__(error)
        own = None
        with suppress(AttributeError):
            own = descriptor.__get__(clone)
        # What was never set may read as None, but `str` shows it after it was set to None.
        if value is not own:
            descriptor.__set__(clone, value)


def _builtin(kind: type, name: str, of_type: type) -> Iterator[Any]:
    """Yield the methods of this name that are not written in Python, the most derived first."""
    for base in kind.__mro__:
        found = vars(base).get(name)
        if isinstance(found, of_type):
            yield found
