"""Rows: a converter that checks each item in its caller, and makes it an array of one shape and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from batchers.checks import as_int
from batchers.errors import OptionError, RowError

Index: TypeAlias = tuple[int, ...]

_NUMBERS = "biufc"
"""Kinds of dtypes that are numbers, as numpy names them."""


def rows(
    shape: Sequence[int | None], dtype: npt.DTypeLike, *, finite: bool = False, max_length: int | None = None
) -> RowConverter:
    """Return a converter for the option `convert`: an item to an array of this shape and dtype.

    shape
        Length of each axis, 0 or more; None: any length. `()` is one number.
    dtype
        A number type, e.g. "float32", or bool.
    finite
        If True, NaN and infinity are refused.
    max_length
        The largest length of the axes that `shape` leaves open: 1 or more. Default None: no limit.

    Raises OptionError for other values.
    """
    return RowConverter(shape, dtype, finite=finite, max_length=max_length)


class RowConverter:
    """Converter of one item to a row; see `rows`.

    Items may be lists, nested lists, numbers, arrays of numpy, and all that numpy takes as an array, for example
    tensors of torch and TensorFlow in the memory of the processor. The row is a new array, in C order and
    writeable: the caller may change its own array after the call.

    The elements of an item must have a place in the dtype: float64 in float32, where digits may be lost; int64 in
    uint8 if all values are from 0 to 255. Values that a float cannot hold are refused, and so are floats as ints,
    numbers as bool, and objects such as Decimal. An empty item fits every dtype.
    """

    __slots__ = ("dtype", "finite", "max_length", "shape")

    def __init__(
        self, shape: Sequence[int | None], dtype: npt.DTypeLike, *, finite: bool, max_length: int | None
    ) -> None:
        """Store and check the arguments of `rows`."""
        given: tuple[object, object, object] = shape, dtype, finite
        if not isinstance(given[0], Sequence) or isinstance(given[0], str | bytes):
            msg = f"shape must be a tuple of lengths, e.g. (10,) or (None, 3), not {shape!r}"
            raise OptionError(msg)
        self.shape: tuple[int | None, ...] = tuple(
            _length("each length of shape", each, least=0) for each in shape
        )
        try:
            self.dtype: np.dtype[Any] = np.dtype(dtype)
        except (TypeError, ValueError, SyntaxError) as error:
            msg = f"dtype must be a number type of numpy, e.g. 'float32', not {dtype!r}"
            raise OptionError(msg) from error
        if given[1] is None or self.dtype.kind not in _NUMBERS:
            msg = f"dtype must be a number type of numpy, e.g. 'float32', not {dtype!r}"
            raise OptionError(msg)
        if not isinstance(given[2], bool):
            msg = f"finite must be True or False, not {finite!r}"
            raise OptionError(msg)
        self.finite = finite
        self.max_length = _length("max_length", max_length, least=1)

    def __repr__(self) -> str:
        """Return the call of `rows` that makes an equal converter."""
        more = ", finite=True" if self.finite else ""
        more += "" if self.max_length is None else f", max_length={self.max_length}"
        name = self.dtype.name if self.dtype.isnative else self.dtype.str
        return f"rows({self.shape}, {name!r}{more})"

    def __call__(self, item: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - any object of a caller
        """Return the row of an item: a new array.

        Raises RowError if the item is no such row, and the errors of `__array__` methods.
        """
        if type(item) is np.ndarray and item.dtype is self.dtype and item.shape == self.shape and not self.finite:
            return item.copy()  # most items; the checks below would take as long as the copy
        if isinstance(item, np.ma.MaskedArray) and np.ma.is_masked(item):
            msg = (
                f"the item is a masked array whose element {_first(np.ma.getmaskarray(item))} is missing: fill it"
            )
            raise RowError(msg)
        try:
            found = np.asarray(item)
        except (ValueError, TypeError, OverflowError) as error:
            msg = f"the item is no array of {self.dtype}: {error}"
            raise RowError(msg) from error
        if found.dtype.kind not in _NUMBERS:
            kind = _type_of(found)
            msg = f"the item has elements of type {kind}, no numbers of Python or numpy: it must be {self._wanted}"
            raise RowError(msg)
        if found.shape != self.shape:
            self._check_shape(found.shape)
        row = self._cast(found)
        if self.finite and row.dtype.kind in "fc" and not np.isfinite(row).all():
            where = _first(~np.isfinite(row))
            msg = f"element {where} of the item is {row[where]}, and all must be finite"
            raise RowError(msg)
        return row

    @property
    def _wanted(self) -> str:
        lengths = ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"an array of shape ({lengths}{',' if len(self.shape) == 1 else ''}) and type {self.dtype}"

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        fits = len(shape) == len(self.shape) and all(
            want in {None, length} for want, length in zip(self.shape, shape, strict=True)
        )
        if not fits:
            hint = ""
            if len(shape) == len(self.shape) + 1:
                hint = "; one item is one row, not a batch of them"
            msg = f"the item has shape {shape}: it must be {self._wanted}{hint}"
            raise RowError(msg)
        if self.max_length is not None:
            for axis, (want, length) in enumerate(zip(self.shape, shape, strict=True)):
                if want is None and length > self.max_length:
                    msg = f"axis {axis} of the item has length {length}, and max_length is {self.max_length}"
                    raise RowError(msg)

    def _cast(self, found: npt.NDArray[Any]) -> npt.NDArray[Any]:
        source, target = found.dtype, self.dtype
        if source == target:
            return found.copy("C")
        if not found.size:  # numpy takes an empty list for floats
            return np.empty(found.shape, target)
        ints = source.kind in "iu" and target.kind in "iu"
        if not ints and not np.can_cast(source, target, "same_kind"):
            msg = f"the item has elements of type {source}, which {target} does not hold: convert them first"
            raise RowError(msg)
        if ints and not np.can_cast(source, target, "safe"):
            limits = np.iinfo(target)
            wrong = (found < limits.min) | (found > limits.max)
            self._refuse_values(found, wrong)
        if target.kind not in "fc" or np.can_cast(source, target, "safe"):
            return found.astype(target, order="C")
        with np.errstate(all="ignore"):
            row = found.astype(target, order="C")
        if not np.isfinite(row).all():
            self._refuse_values(found, np.isfinite(found) & ~np.isfinite(row))
        return row

    def _refuse_values(self, found: npt.NDArray[Any], wrong: npt.NDArray[Any]) -> None:
        if wrong.any():
            where = _first(wrong)
            msg = f"element {where} of the item is {found[where]}, which {self.dtype} does not hold"
            raise RowError(msg)


def _length(name: str, value: object, *, least: int) -> int | None:
    found = None if value is None else as_int(value)
    if value is not None and (found is None or found < least):
        msg = f"{name} must be a whole number, {least} or more, or None, not {value!r}"
        raise OptionError(msg)
    return found


def _first(found: npt.NDArray[Any]) -> Index:
    """Return the index of the first element that is true."""
    return tuple(int(each) for each in np.argwhere(found)[0])


def _type_of(found: npt.NDArray[Any]) -> str:
    """Return the type of the elements; for an object array, that of the first one that is no number."""
    if found.dtype.kind == "O":
        for element in found.flat:
            if not isinstance(element, int | float | complex | np.number):
                return type(element).__name__
    return str(found.dtype)
