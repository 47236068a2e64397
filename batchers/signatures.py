"""Signatures of `@batched` functions: what a call of a single item looks like, from the function of a list."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_origin

_OPTIONS = ("timeout", "priority")
_COLLECTIONS = {"list", "deque", "Sequence", "MutableSequence", "Iterable", "Collection"}
_AWAITABLES = {"Awaitable", "Coroutine"}


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a call with one item, or None if the function does not tell its own.

    An annotation `list[T]` of the function becomes `T`, and any annotation without a known element type `Any`.
    """
    own = _signature(function)
    if own is None:
        return None
    required = _required(own)
    first: list[inspect.Parameter] = []
    if len(required) > 1:
        first = [required[0].replace(kind=inspect.Parameter.POSITIONAL_ONLY)]
    items = required[-1].annotation if required else inspect.Parameter.empty
    by_place = inspect.Parameter.POSITIONAL_ONLY if first else inspect.Parameter.POSITIONAL_OR_KEYWORD
    only_by_name = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            *first,
            inspect.Parameter("item", by_place, annotation=_element(items)),
            inspect.Parameter("timeout", only_by_name, default=None, annotation=float | None),
            inspect.Parameter("priority", only_by_name, default=0, annotation=int),
        ],
        return_annotation=_element(own.return_annotation),
    )


def annotations_of(signature: inspect.Signature | None) -> dict[str, Any]:
    """Return the annotations of a signature in the form of `__annotations__`."""
    if signature is None:
        return {}
    found = {name: each.annotation for name, each in signature.parameters.items()}
    found["return"] = signature.return_annotation
    return {name: annotation for name, annotation in found.items() if annotation is not inspect.Parameter.empty}


def takes_object(function: Callable[..., Any]) -> bool:
    """Return True for a method that is not bound: it takes its object before the list of items."""
    own = _signature(function)
    return own is not None and len(_required(own)) > 1


def options_of(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a call; TypeError, with the known names, for an unknown one."""
    unknown = [option for option in given if option not in _OPTIONS]
    if unknown:
        msg = f"{name}() has no argument {unknown[0]!r}: it takes one item, timeout and priority"
        raise TypeError(msg)
    return given


def wrong_arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, method: bool) -> str:
    """Return the message for a call with another number of arguments than one item."""
    unknown = [name for name in kwargs if name not in _OPTIONS]
    if unknown and not args:
        return f"{name}() has no argument {unknown[0]!r}: pass the item by its place, or as item=..."
    count = len(args) + len(unknown)
    if method and count == 1:
        return f"{name}() is a method: call it on an object, or pass the object before the item"
    count -= method
    return (
        f"{name}() takes one item, not {count}: an item is one object, so pass several values as a tuple; "
        "process_many() takes many items"
    )


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # as of some functions that are written in C
        return None


def _required(signature: inspect.Signature) -> list[inspect.Parameter]:
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        each
        for each in signature.parameters.values()
        if each.kind in by_place and each.default is inspect.Parameter.empty
    ]


def _element(annotation: Any) -> Any:  # noqa: ANN401 - annotations have no common type
    """Return the element type of the annotation of a list, which may be text."""
    if annotation is inspect.Parameter.empty:
        return annotation
    if isinstance(annotation, str):
        return _element_of_text(annotation)
    name = getattr(get_origin(annotation), "__name__", "")
    if name in _AWAITABLES:
        return _element(get_args(annotation)[-1])
    return get_args(annotation)[0] if name in _COLLECTIONS and get_args(annotation) else Any


def _element_of_text(annotation: str) -> Any:  # noqa: ANN401 - text, or Any
    """Do the same for text, without `ast`: that is not safe in several threads in CPython 3.11 (gh-106905)."""
    outer, bracket, inner = annotation.strip().removesuffix("]").partition("[")
    name = outer.rpartition(".")[2].replace("List", "list").replace("Deque", "deque")
    if bracket and name in _AWAITABLES:
        return _element_of_text(inner.removeprefix("Any,").lstrip().removeprefix("Any,"))
    return inner if bracket and name in _COLLECTIONS else Any
