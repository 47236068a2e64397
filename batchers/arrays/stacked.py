"""`stacked`: a batch function from a model that takes one array, or a structure of arrays, for all items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np

from batchers.checks import as_sizes
from batchers.errors import OptionError, RowError

from .padding import Padding
from .rows import RowConverter
from .structures import mapped, parts_of, rebuilt, split, stack

Converter: TypeAlias = RowConverter | dict[Any, Any] | tuple[Any, ...]
"""A converter of items, or a dict or tuple of converters, for items that are dicts or tuples of arrays."""


def stacked(
    model: Callable[..., Any],
    convert: Converter | None = None,
    *,
    copy: bool = True,
    padding: Padding | None = None,
    batch_sizes: Sequence[int] | None = None,
) -> Stacked:
    """Return the batch function that calls `model` once, with the items of a batch in one array.

    Pass it to `create_batcher`, to the constructor of a batcher or a subclass, or to `batched`. The options
    `convert`, `length` and `batch_sizes` come with it. The array is made where the batch runs; for a pool
    of processes, in the thread that sends it. It is a new one for each batch.

    model
        A function, sync or async, of an array of shape (n, ...), which returns an array with n rows. Items that
        are dicts, tuples or dataclasses of arrays become one of stacked arrays. Results that are dicts, tuples or
        dataclasses of arrays are split by their arrays: each caller gets one with its rows.
    convert
        What `rows` returns, or a dict or tuple of such converters for items with these parts. It runs in the
        caller, who gets RowError for an item that does not fit. Default None: items are stacked as they are, and
        an item of another shape fails its batch.
    copy
        If False, the rows of results of numpy and torch are views: each keeps the results of the whole batch in
        memory, and changes if the model writes to them again. Default True: each row is a copy. Rows of
        TensorFlow and JAX cannot be changed, and are never views.
    padding
        For items of different lengths along one axis; see `Padding`. With `convert`, the arrays are padded whose
        shape is open there (None); without it, all. Default None: all items have the same shape.
    batch_sizes
        The sizes of batches for which the model is compiled, 1 or more each. If more items wait than fit a size, a
        batch has such a size; other batches are padded with copies of their last item, whose results are dropped.
        The largest is `max_batch_size`. Default None: batches of any size.

    Raises OptionError for other values.
    """
    kind = _AsyncStacked if _is_async(model) else Stacked
    return kind(model, convert, copy=copy, padding=padding, batch_sizes=batch_sizes)


class Stacked:
    """A batch function that calls a model with all items in one array; see `stacked`."""

    def __init__(
        self,
        model: Callable[..., Any],
        convert: Converter | None,
        *,
        copy: bool,
        padding: Padding | None,
        batch_sizes: Sequence[int] | None,
    ) -> None:
        """Store and check the arguments of `stacked`."""
        given: tuple[object, object, object] = copy, padding, model
        if not callable(given[2]):
            msg = f"model must be a function of an array, not {model!r}"
            raise OptionError(msg)
        if not isinstance(given[0], bool):
            msg = f"copy must be True or False, not {copy!r}"
            raise OptionError(msg)
        if not isinstance(given[1], Padding | None):
            msg = f"padding must be Padding(...) or None, not {padding!r}"
            raise OptionError(msg)
        _check_converter(convert)
        self._model = model
        self._convert = convert
        self._copy = copy
        self._padding = padding
        sizes = () if batch_sizes is None else as_sizes(batch_sizes)
        if sizes is None:
            msg = f"batch_sizes must be whole numbers, 1 or more, e.g. (1, 8, 32), not {batch_sizes!r}"
            raise OptionError(msg)
        self._sizes = sizes
        self._open = None if convert is None or padding is None else _open_leaves(convert, padding.axis)
        if self._open == []:
            msg = f"padding needs an array whose shape is open (None) along axis {padding.axis if padding else 0}"
            raise OptionError(msg)
        self.__name__ = getattr(model, "__name__", type(model).__name__)
        self.__doc__ = model.__doc__

    def __repr__(self) -> str:
        """Return a short description."""
        return f"<stacked {self.__name__}>"

    def __get__(self, obj: object, owner: type | None = None) -> Self:
        """Return the same with a method as the model, bound to its object."""
        if obj is None or not hasattr(self._model, "__get__"):
            return self
        bound = object.__new__(type(self))
        bound.__dict__ = self.__dict__ | {"_model": self._model.__get__(obj, owner)}
        return bound

    def __call__(self, batch: list[Any], /) -> Any:  # noqa: ANN401 - rows, or a coroutine for them
        """Return the rows of what the model returns for all items."""
        count, arguments = self.stack(batch)
        return self._rows(self._model(*arguments), count)

    @property
    def __batchers_options__(self) -> dict[str, Any]:
        """The options of the batcher that come with this function."""
        options: dict[str, Any] = {}
        if self._convert is not None:
            simple = self._padding is None and isinstance(self._convert, RowConverter)
            options["convert"] = self._convert if simple else self._converted
        if self._padding is not None:
            options["length"] = self._length_of
        if self._sizes:
            options["batch_sizes"] = self._sizes
        return options

    @property
    def converter(self) -> Converter | None:
        """The argument `convert` of `stacked`."""
        return self._convert

    def __batchers_pack__(self, batch: list[Any]) -> list[Any]:
        """Return the batch as a list that is stacked when it is pickled, for a pool of processes."""
        return _Packed(batch, self)

    def _converted(self, item: Any) -> Any:  # noqa: ANN401 - the user's
        converted = item if self._convert is None else _convert(self._convert, item, "")
        if self._padding is not None:
            self._padding.length_for(self._length_of(converted))  # raises RowError for one that is too long
        return converted

    def _length_of(self, item: Any) -> int:  # noqa: ANN401 - as above
        """Return the length of the first array that is padded."""
        found: list[int] = []

        def look(leaves: list[Any], path: str) -> None:
            if self._is_padded(path):
                shape = np.shape(leaves[0])
                axis = 0 if self._padding is None else self._padding.axis
                if len(shape) <= axis:
                    msg = f"the item{path} has shape {shape}, which has no axis {axis} to be padded"
                    raise RowError(msg)
                found.append(shape[axis])

        mapped(look, [item])
        return found[0]

    def _is_padded(self, path: str) -> bool:
        return self._padding is not None and (self._open is None or path in self._open)

    def stack(self, batch: list[Any]) -> tuple[int, tuple[Any, ...]]:
        """Return the number of items, and the arguments of the model."""
        if isinstance(batch, _Arguments):
            return batch.size, batch.arguments
        count = len(batch)
        if self._sizes:
            size = min((size for size in self._sizes if size >= count), default=count)
            batch = batch + [batch[-1]] * (size - count)
        padding = self._padding
        if padding is None:
            return count, (mapped(stack, batch),)
        arrays = mapped(
            lambda leaves, path: padding.stack(leaves) if self._is_padded(path) else stack(leaves, path), batch
        )
        if not (padding.lengths or padding.mask):
            return count, (arrays,)
        return count, (arrays, *padding.beside([self._length_of(item) for item in batch]))

    def _rows(self, result: Any, count: int) -> list[Any]:  # noqa: ANN401 - as above
        size = min((size for size in self._sizes if size >= count), default=count) if self._sizes else count
        return split(result, size, copy=self._copy)[:count]


class _AsyncStacked(Stacked):
    """The same for an async model."""

    async def __call__(self, batch: list[Any], /) -> Any:  # noqa: ANN401 - as in `Stacked`
        """Return the rows of what the model returns for all items."""
        count, arguments = self.stack(batch)
        return self._rows(await self._model(*arguments), count)


class _Arguments(list[Any]):
    """The arguments of the model, as they arrive in another process."""

    def __init__(self, size: int, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.size = size
        self.arguments = arguments


class _Packed(list[Any]):
    """The items of a batch, which are stacked when they are pickled."""

    def __init__(self, batch: list[Any], stacking: Stacked) -> None:
        super().__init__(batch)
        self._stacking = stacking

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call that makes the arguments of the model in the other process."""
        return _Arguments, self._stacking.stack(list(self))


def _is_async(model: object) -> bool:
    from inspect import iscoroutinefunction  # noqa: PLC0415 - slow to import, and rarely used

    return iscoroutinefunction(model) or iscoroutinefunction(getattr(model, "__call__", None))  # noqa: B004


def _check_converter(convert: object) -> None:
    if convert is None or isinstance(convert, RowConverter):
        return
    parts = parts_of(convert) if isinstance(convert, dict | tuple) else None
    if not parts:
        msg = f"convert must be rows(...), a dict or tuple of these, or None, not {convert!r}"
        raise OptionError(msg)
    for part in parts.values():
        _check_converter(part)
        if part is None:
            msg = "each part of convert must be rows(...), or a dict or tuple of these, not None"
            raise OptionError(msg)


def _open_leaves(convert: Converter, axis: int, path: str = "") -> list[str]:
    """Return the names of the arrays whose shape is open along this axis."""
    if isinstance(convert, RowConverter):
        return [path] if len(convert.shape) > axis and convert.shape[axis] is None else []
    parts = parts_of(convert) or {}
    return [leaf for key, part in parts.items() for leaf in _open_leaves(part, axis, f"{path}[{key!r}]")]


def _convert(convert: Converter, item: Any, path: str) -> Any:  # noqa: ANN401 - the user's
    """Return the rows of an item. Raises RowError, which names the part that does not fit."""
    if isinstance(convert, RowConverter):
        try:
            return convert(item)
        except RowError as error:
            if not path:
                raise
            msg = f"the part {path} of the item does not fit: {error}"
            raise RowError(msg) from error
    wanted, parts = parts_of(convert) or {}, parts_of(item)
    if parts is None or parts.keys() != wanted.keys():
        found = type(item).__name__ if parts is None else f"the parts {list(parts)}"
        msg = f"the item{path} is {found}: it must have the parts {list(wanted)}"
        raise RowError(msg)
    return rebuilt(item, {key: _convert(part, parts[key], f"{path}[{key!r}]") for key, part in wanted.items()})
