"""What a batcher has in place of a driver if its `__init__` did not run."""

from __future__ import annotations

from typing import NoReturn

from batchers.errors import BatcherError


class NoDriver:
    """Replaces the driver of an object if `Batcher.__init__` did not run; every use raises BatcherError."""

    def __getattr__(self, name: str) -> NoReturn:
        """Raise BatcherError for all names but those that Python looks up itself."""
        if name.startswith("__"):
            raise AttributeError(name)
        msg = (
            "this batcher was never set up: call super().__init__() in its __init__, and let the batcher be the "
            "first base class; a pickled batcher serves no calls, so make a new one"
        )
        raise BatcherError(msg)
