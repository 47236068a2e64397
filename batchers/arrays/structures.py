"""Dicts, tuples and dataclasses of arrays: to stack the items of a batch by leaf, and to split its results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from batchers.errors import BatchResultError, RowError


def parts_of(structure: object) -> dict[Any, Any] | None:
    """Return the parts of a dict, tuple or dataclass by their keys, indices or names; None for a leaf."""
    if isinstance(structure, dict):
        return structure
    if isinstance(structure, tuple):
        return dict(enumerate(structure))
    if is_dataclass(structure) and not isinstance(structure, type):
        return {field.name: getattr(structure, field.name) for field in fields(structure) if field.init}
    return None


def rebuilt(structure: Any, parts: dict[Any, Any]) -> Any:  # noqa: ANN401 - the user's
    """Return a structure of the same kind with other parts."""
    if isinstance(structure, dict):
        return parts
    if isinstance(structure, tuple):
        values = parts.values()
        return type(structure)(*values) if hasattr(structure, "_fields") else tuple(values)
    return type(structure)(**parts)


def mapped(function: Callable[[list[Any], str], Any], items: list[Any], path: str = "") -> Any:  # noqa: ANN401
    """Return a structure like the items, whose leaves are `function` of the items' leaves and of the leaf's name.

    Raises RowError if an item has other parts than the first one.
    """
    first = parts_of(items[0])
    if first is None:
        return function(items, path)
    all_parts = [parts_of(item) or {} for item in items]
    for parts in all_parts:
        if parts.keys() != first.keys():
            msg = f"an item{path} has the parts {list(parts)}, and another one {list(first)}: give all the same"
            raise RowError(msg)
    return rebuilt(
        items[0],
        {key: mapped(function, [parts[key] for parts in all_parts], f"{path}[{key!r}]") for key in first},
    )


def stack(leaves: list[Any], path: str) -> Any:  # noqa: ANN401 - as above
    """Return one array of the leaves of all items, of the package that they belong to; numpy for all else.

    Raises RowError if their shapes differ.
    """
    package = _package_of(leaves[0])
    try:
        if package == "torch":
            return sys.modules["torch"].stack(leaves)
        if package == "tensorflow":
            return sys.modules["tensorflow"].stack(leaves)
        if package == "jax":
            return sys.modules["jax"].numpy.stack(leaves)
        return np.stack(leaves)
    except (ValueError, RuntimeError, TypeError) as error:
        shapes = sorted({str(tuple(np.shape(leaf))) for leaf in leaves})
        if len(shapes) == 1:
            raise
        msg = f"the items{path} have the shapes {', '.join(shapes)}: give `rows` to `stacked`, or `padding`"
        raise RowError(msg) from error


def split(result: Any, count: int, *, copy: bool, path: str = "") -> list[Any]:  # noqa: ANN401 - as above
    """Return the rows of a result: an array, or a structure of arrays. With `copy`, rows share no memory with it.

    Raises BatchResultError if an array does not have `count` rows.
    """
    parts = parts_of(result)
    if parts is not None:
        columns = {key: split(part, count, copy=copy, path=f"{path}[{key!r}]") for key, part in parts.items()}
        return [rebuilt(result, {key: column[row] for key, column in columns.items()}) for row in range(count)]
    length = len(result) if hasattr(result, "__len__") and np.ndim(result) else None
    if length != count:
        found = f"no rows: {type(result).__name__}" if length is None else f"{length} rows"
        msg = f"the model returned {found}{path} for {count} items: it must return one row for each item"
        raise BatchResultError(msg)
    package = _package_of(result)
    if package == "torch":
        return [row.clone() if copy else row for row in result.unbind(0)]
    if package == "tensorflow":
        return list(sys.modules["tensorflow"].unstack(result, num=count))
    found_rows: Sequence[Any] = list(result)
    is_flat = isinstance(result, np.ndarray) and result.ndim == 1 and result.dtype != object
    if copy and not is_flat:  # scalars are copies
        return [row.copy() if isinstance(row, np.ndarray) else row for row in found_rows]
    return list(found_rows)


def _package_of(array: object) -> str:
    """Return the package of an array type, if it is one whose arrays have functions of their own here."""
    for base in type(array).__mro__:
        package = base.__module__.partition(".")[0]
        if package in {"torch", "tensorflow", "jax", "jaxlib"} and package.removesuffix("lib") in sys.modules:
            return package.removesuffix("lib")
    return ""
