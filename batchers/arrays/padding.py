"""Padding: items of different lengths along one axis in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from batchers.checks import as_int, as_sizes
from batchers.errors import OptionError, RowError


@dataclass(frozen=True, slots=True)
class Padding:
    """How the items of a batch become equally long along one axis.

    axis
        The axis of an item: 0 or more. Default 0.
    to
        "longest": the longest item of the batch. An int, 1 or more: its next multiple. A sequence of ints: the
        smallest of these sizes that is long enough; a longer item is refused with RowError, in its caller.
        Default "longest".
    value
        What is filled in. Default 0.
    lengths
        If True, the model gets the lengths of the items as one more argument: int64, shape (n,). Default False.
    mask
        If True, the model gets one more argument, the last one: bool, shape (n, length), True where an item has
        elements. Default False.

    Raises OptionError for other values.
    """

    axis: int = 0
    to: Literal["longest"] | int | Sequence[int] = "longest"
    value: Any = 0
    lengths: bool = False
    mask: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        axis = as_int(self.axis)
        if axis is None or axis < 0:
            msg = f"axis must be a whole number, 0 or more, not {self.axis!r}"
            raise OptionError(msg)
        if self.to == "longest":
            return
        if self._sizes is None:
            msg = f'to must be "longest", a whole number, or a sequence of them, 1 or more, not {self.to!r}'
            raise OptionError(msg)

    @property
    def _sizes(self) -> tuple[int, ...] | None:
        to: object = self.to
        return as_sizes(to if isinstance(to, Sequence) else (to,))

    def length_for(self, longest: int) -> int:
        """Return the length to which a batch is padded. Raises RowError if no size is long enough."""
        if self.to == "longest":
            return longest
        sizes = self._sizes or (1,)
        if not isinstance(self.to, Sequence):
            return max(-(-longest // sizes[0]), 1) * sizes[0]
        for size in sizes:
            if size >= longest:
                return size
        msg = f"the item has length {longest} along axis {self.axis}, and the largest size is {sizes[-1]}"
        raise RowError(msg)

    def stack(self, leaves: list[Any]) -> npt.NDArray[Any]:
        """Return one padded array of arrays with this axis, whose other axes are equal.

        Raises RowError if they are not.
        """
        arrays = [np.asarray(leaf) for leaf in leaves]
        first = arrays[0]
        shapes = {(*array.shape[: self.axis], *array.shape[self.axis + 1 :]) for array in arrays}
        if len(shapes) > 1 or first.ndim <= self.axis:
            found = ", ".join(sorted({str(array.shape) for array in arrays}))
            msg = f"items of the shapes {found} differ in more than axis {self.axis}: give `rows` to `stacked`"
            raise RowError(msg)
        length = self.length_for(max(array.shape[self.axis] for array in arrays))
        shape = (len(arrays), *first.shape[: self.axis], length, *first.shape[self.axis + 1 :])
        padded = np.full(shape, self.value, np.result_type(*{array.dtype for array in arrays}))
        for row, array in zip(padded, arrays, strict=True):
            row[(*[slice(None)] * self.axis, slice(array.shape[self.axis]))] = array
        return padded

    def beside(self, lengths: list[int]) -> list[npt.NDArray[Any]]:
        """Return the further arguments of the model: the lengths and the mask, as far as they are wanted."""
        found: list[npt.NDArray[Any]] = []
        given = np.array(lengths, np.int64)
        if self.lengths:
            found.append(given)
        if self.mask:
            found.append(np.arange(self.length_for(max(lengths))) < given[:, None])
        return found
