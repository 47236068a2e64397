"""`Rows`: the type of what a batch function returns."""

from __future__ import annotations

from typing import Protocol, TypeVar

S_co = TypeVar("S_co", covariant=True)


class Rows(Protocol[S_co]):
    """One element for each item: a list, or an array of numpy, torch, TensorFlow or JAX, whose rows are elements.

    Text, mappings and tuples have these methods, too. `Batcher.process_batch` lists what is no rows: it fails the
    batch with BatchResultError.
    """

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, index: int, /) -> S_co:
        """Return one row."""
        ...
