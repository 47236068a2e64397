"""The two backends: which driver a batcher has."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from .batcher import Batcher
from .drivers.asyncio_driver import AsyncioDriver
from .drivers.driver import Driver
from .drivers.threading_driver import ThreadingDriver

T = TypeVar("T")
S = TypeVar("S")


class ThreadingBatcher(Batcher[T, S]):
    """Batcher that uses threads and Conditions; `Batcher` documents its promises.

    A sync `process_batch` runs in worker threads of the batcher, or in `executor`. An async one runs on an event
    loop in a thread of the batcher. The threads are daemons: when the interpreter exits, accepted items are served
    for up to 5 s.
    """

    _Batcher__batchers_driver_type: ClassVar[type[Driver[Any, Any]] | None] = ThreadingDriver


class AsyncioBatcher(Batcher[T, S]):
    """Batcher that uses callbacks and tasks of an event loop; `Batcher` documents its promises.

    An async `process_batch` runs on the loop of the first coroutine that calls, until that loop ends, or on a
    loop in a thread of the batcher if a thread calls first. A sync one runs in up to `concurrency` threads of the
    batcher (and one more for each batch that hangs), or in `executor`. The threads are daemons: when the
    interpreter exits, accepted items are served for up to 5 s.
    """

    _Batcher__batchers_driver_type: ClassVar[type[Driver[Any, Any]] | None] = AsyncioDriver


BACKENDS: dict[str, type[Batcher[Any, Any]]] = {"threading": ThreadingBatcher, "asyncio": AsyncioBatcher}
"""The batcher class of each backend name."""
