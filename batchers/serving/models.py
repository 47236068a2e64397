"""A model as its user gives it: a function of a list, or an object with `predict`."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool

from .payloads import ItemType, ModelError, item_types, rows_schema

WARMED_UP = 256
"""The largest batch with which a model without `warm_up` is warmed up."""


class Model:
    """A model that is served.

    function
        The batch function: the model itself, or its method `predict`.
    items, results
        The types of items and results.

    Example:
        An item for the documentation and the warm-up; None: there is none.

    """

    def __init__(self, given: Any) -> None:  # noqa: ANN401 - the user's
        """Initialise the model from what its user gives; a class is called without arguments.

        Raises ModelError for what is no model.
        """
        self._given = _instance_of(given)
        function = getattr(self._given, "predict", self._given)
        if not callable(function):
            msg = f"{given!r} is no model: it must be a function of a list, or an object with predict(batch)"
            raise ModelError(msg)
        self.function: Callable[..., Any] = function
        self.example: Any = getattr(self._given, "example", None)
        converter = getattr(function, "converter", None) if hasattr(function, "__batchers_options__") else None
        if converter is None:
            item, result = item_types(function)
            self.items = ItemType(item)
            self.results = _documented(result)
        else:  # of `batchers.arrays.stacked`: the batcher converts the items
            self.items = ItemType(Any, schema=rows_schema(converter))
            self.results = ItemType(Any)

    async def start(self, size: int) -> None:
        """Load the model, and warm it up with batches of one and of `size` items.

        Raises ModelError, which names the place, for every error of the model.
        """
        for name, arguments in (("load", ()), ("warm_up", (size,))):
            method = getattr(self._given, name, None)
            if method is not None:
                await _called(name, method, *arguments)
            elif name == "warm_up" and self.example is not None:
                await _called("predict", self.function, [self.example])
                await _called("predict", self.function, [self.example] * min(size, WARMED_UP))

    async def stop(self) -> None:
        """Call `close`, if the model has it."""
        close = getattr(self._given, "close", None)
        if close is not None:
            await _called("close", close)


def load_model(path: str) -> Any:  # noqa: ANN401 - the user's
    """Return what "package.module:name" names. Raises ModelError."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        msg = f"{path!r} does not name a model: write package.module:name"
        raise ModelError(msg)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        msg = f"the module {module_name} cannot be imported: {_place_of(error)}"
        raise ModelError(msg) from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            known = [each for each in dir(found) if not each.startswith("_")]
            msg = f"the module {module_name} has no {name}; it has {', '.join(known) or 'nothing'}"
            raise ModelError(msg) from None
    return found


def _instance_of(given: Any) -> Any:  # noqa: ANN401 - the user's
    if not isinstance(given, type):
        return given
    try:
        return given()
    except Exception as error:
        msg = f"{given.__name__}() failed: {_place_of(error)}"
        raise ModelError(msg) from error


def _documented(result: Any) -> ItemType:  # noqa: ANN401 - a type
    try:
        return ItemType(result)
    except ModelError:
        return ItemType(Any)  # an array, for instance: its rows are JSON all the same


async def _called(name: str, method: Callable[..., Any], *arguments: object) -> None:
    try:
        if inspect.iscoroutinefunction(method):
            await method(*arguments)
        else:
            result = await run_in_threadpool(method, *arguments)
            if isinstance(result, Awaitable):
                await result
    except ModelError:
        raise
    except Exception as error:
        msg = f"{name}() failed: {_place_of(error)}"
        raise ModelError(msg) from error


def _place_of(error: BaseException) -> str:
    """Return an error in one line, with the place where it was raised."""
    text = str(error).strip().partition("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
