"""A model as its user gives it: a function of a list, or an object with `predict`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool

from batchers import Batched, Batcher
from batchers.core.outcomes import Failed, judge

from .answers import place_of
from .payloads import ItemType, ModelError, item_types, rows_schema


class Model:
    """A model that is served.

    `function` is the batch function: the model itself, or its method `predict`. `items` and `results` are the
    types of items and results. `example` is an item as JSON, for the documentation; None: there is none.
    """

    def __init__(self, given: Any) -> None:  # noqa: ANN401 - the user's
        """Initialise the model from what its user gives; a class is called without arguments.

        Raises ModelError for what is no model.
        """
        self._given = _instance_of(given)
        function = getattr(self._given, "predict", self._given)
        if isinstance(function, Batched | Batcher):
            msg = f"{function!r} is batched already: give the plain function, without a batcher"
            raise ModelError(msg)
        if not callable(function):
            msg = f"{given!r} is no model: it must be a function of a list, or an object with predict(batch)"
            raise ModelError(msg)
        self.function: Callable[..., Any] = function
        converter = getattr(function, "converter", None) if hasattr(function, "__batchers_options__") else None
        if converter is None:
            item, result = item_types(function)
            self.items = ItemType(item)
            self.results = _documented(result)
        else:  # of `batchers.arrays.stacked`: the batcher converts the items
            self.items = ItemType(Any, schema=rows_schema(converter))
            self.results = ItemType(Any)
        example = getattr(self._given, "example", None)
        self.example: Any = None
        self._example_item: Any = None
        if example is not None:
            self.example, self._example_item = self.items.example(example)

    async def start(self, size: int) -> None:
        """Load the model, and warm it up with batches of one and of `size` items.

        Raises ModelError, which names the place, for every error of the model.
        """
        for name, arguments in (("load", ()), ("warm_up", (size,))):
            method = getattr(self._given, name, None)
            if method is not None:
                await _called(name, method, *arguments)
            elif name == "warm_up" and self.example is not None:
                for count in (1, size):
                    await self._try(count)

    async def _try(self, count: int) -> None:
        """Predict the example so many times. Raises ModelError if the results are no such number of rows."""
        result = await _called("predict", self.function, [self._example_item] * count)
        verdict = judge(result, count)
        if isinstance(verdict, Failed):
            msg = str(verdict.cause).replace("process_batch", "predict")
            raise ModelError(msg)

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
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            msg = f"there is no module {module_name}: start in its folder, or name that folder with --app-dir"
        else:
            msg = f"the module {module_name} cannot be imported: {place_of(error)}"
        raise ModelError(msg) from error
    except Exception as error:
        msg = f"the module {module_name} cannot be imported: {place_of(error)}"
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
        msg = f"{given.__name__}() failed: {place_of(error)}"
        raise ModelError(msg) from error


def _documented(result: Any) -> ItemType:  # noqa: ANN401 - a type
    try:
        return ItemType(result)
    except ModelError:
        return ItemType(Any)  # an array, for instance: its rows are JSON all the same


async def _called(name: str, method: Callable[..., Any], *arguments: object) -> object:
    try:
        if inspect.iscoroutinefunction(method):
            result = await method(*arguments)
        else:
            result = await run_in_threadpool(method, *arguments)
            if isinstance(result, Awaitable):
                result = await result
    except ModelError:
        raise
    except Exception as error:
        msg = f"{name}() failed: {place_of(error)}"
        raise ModelError(msg) from error
    return result
