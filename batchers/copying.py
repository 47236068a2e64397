"""What copies and pickles of a batcher are: its driver belongs to one object in one process."""

from __future__ import annotations

from typing import Any, NoReturn

from .errors import BatcherError


class NotCopied:
    """Base class of `Batcher`: it refuses copies, and leaves the driver out of pickles."""

    __slots__ = ()

    def __copy__(self) -> NoReturn:
        """Raise BatcherError, because two batchers cannot share a queue."""
        msg = f"a batcher cannot be copied: make a new {type(self).__name__} with the same arguments"
        raise BatcherError(msg)

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Raise BatcherError, as `__copy__` does."""
        self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for pickling, without the driver: enough for `process_batch` in another process.

        Therefore a subclass works with a ProcessPoolExecutor. Calls of the copy there raise BatcherError.
        """
        state = dict(self.__dict__)
        state.pop("_Batcher__batchers_driver", None)
        return state
