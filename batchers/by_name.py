"""Batch functions of `@batched` for other processes.

The name of a decorated function refers to what the decorator has returned, so pickle refuses the function itself.
A `NamedFunction` is pickled as that name, and as the object of a method.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

ATTRIBUTE = "__batched__"
"""Attribute of a decorated function with the batch function itself. `functools.wraps` copies it to wrappers."""


class NamedFunction:
    """A batch function, or a method with its object, that is pickled as its name."""

    def __init__(self, function: Callable[..., Any], *bound: object) -> None:
        """Store the function, and the object that it is bound to, if there is one."""
        self._function = function
        self._bound = bound

    def __call__(self, items: list[Any]) -> Any:  # noqa: ANN401 - the result is the user's
        """Call the function."""
        return self._function(*self._bound, items)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return how to find the function; raise PicklingError if its name leads to nothing."""
        module, name = self._function.__module__, self._function.__qualname__
        if "<locals>" in name:
            msg = (
                f"a process pool finds a @batched function by its name, and {name} is inside of another function: "
                "define it at the top level of its module, or in a class there"
            )
            raise pickle.PicklingError(msg)
        return find, (module, name, *self._bound)


def find(module: str, name: str, *bound: object) -> Callable[[list[Any]], Any]:
    """Return the batch function of a decorated function, bound to an object if there is one."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
        found = getattr(found, "__func__", found)  # of a staticmethod or classmethod
    function = getattr(found, ATTRIBUTE)
    return partial(function, *bound) if bound else function
