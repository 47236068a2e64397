"""`connect`: the batcher of another process, with the calls of `Batcher`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable
from typing import Any, NoReturn, TypeVar

from batchers.batcher import Batcher
from batchers.checks import as_float, whole_number
from batchers.drivers.worlds import refuse_green_threads
from batchers.errors import BatcherError, OptionError
from batchers.options import Options

from . import addresses
from .codecs import CODECS, Codec
from .connection import Link
from .driver import RemoteDriver

T = TypeVar("T")
S = TypeVar("S")

UNLIMITED = 1e300
"""The limit of costs where only the server knows it."""


class RemoteBatcher(Batcher[T, S]):
    """The batcher that another process serves; `connect` makes it, and `Batcher` documents its calls.

    The calls are those of a batcher, with these differences:

    - The items and results are those that the codec of the server makes of them.
    - An exception of the function whose class is not one of batchers is a RemoteError.
    - If the other process has ended, or cannot be reached, calls fail with BatcherUnavailableError; `healthy` is
      False until it is back. The client connects again by itself; no item is ever sent twice.
    - A process that was stopped (SIGSTOP) or hangs ends no connection: only a timeout ends its calls. Give one.
    - A batch function that calls a client of its own batcher waits for itself: nothing recognises that here.
    - `stop` and `close` end the client, and leave the served batcher as it is. With `force`, those of its items
      fail that wait in the queue.
    - `stats`, `decisions`, `dump` and `reconfigure` are about the served batcher. They block for as long as it
      takes to answer, 1 second at most; then they raise BatcherUnavailableError.
    """

    def __init__(self, options: Options, link: Link) -> None:
        """Initialise the client; `connect` documents the options."""
        refuse_green_threads(needs_loop=True)
        driver: RemoteDriver[T, S] = RemoteDriver(options.name or type(self).__name__, options, link)
        object.__setattr__(self, "_Batcher__batchers_driver", driver)

    @property
    def _remote(self) -> RemoteDriver[T, S]:
        driver: RemoteDriver[T, S] = vars(self)["_Batcher__batchers_driver"]
        return driver

    def process_batch(self, batch: list[T], /) -> NoReturn:  # noqa: ARG002 - the function is elsewhere
        """Raise BatcherError: the function runs in the other process."""
        msg = "process_batch runs in the process that serves the batcher: await process(item) here"
        raise BatcherError(msg)

    @property
    def about(self) -> dict[str, Any]:
        """What the server says of itself: the option `about` of `serve`; empty before the first connection."""
        return dict(self._remote.about)

    async def connected(self) -> None:
        """Connect now, and return when the server has answered.

        Raises BatcherUnavailableError, and OptionError if the options do not fit the server.
        """
        await self.ask("ping")

    async def ask(self, name: str, payload: bytes = b"", *, timeout: float | None = None) -> bytes:
        """Return the answer of a function of the option `answers` of `serve`. Raises its errors."""
        answer: bytes = await self._remote.ask(name, payload, timeout, asyncio.get_running_loop())
        return answer


def connect(
    path: str | os.PathLike[str],
    *,
    codec: str | Codec | None = None,
    timeout: float | None = None,
    convert: Callable[[Any], Any] | None = None,
    group_by: Callable[[Any], Hashable] | None = None,
    cost: Callable[[Any], float] | None = None,
    length: Callable[[Any], float] | None = None,
    max_pending: int = 4096,
    max_frame_size: int = 64_000_000,
    arena_size: int = 64_000_000,
    connect_timeout: float = 2.0,
    name: str | None = None,
) -> RemoteBatcher[Any, Any]:
    """Return a client of the batcher that is served at a path; it connects at its first call, or by `start`.

    path
        The path that `serve` has.
    codec
        Default None: the one that the server names, but not "pickle", which must be named here, too.
    timeout
        Seconds from a call to its answer, for calls that give none: above 0. Default None: the limit of the served
        batcher, which a process that was stopped does not keep.
    convert, group_by, cost, length
        As options of a batcher: they are called in this process, and only what they return travels. The functions
        of the served batcher of the same names are not called then, but for `convert`. `cost` and `length` need a
        batcher that has the option. A group must be something that JSON can say, or a tuple of such.
    max_pending
        Calls without an answer at most, 1 or more; -1: no limit. More get QueueFullError. Default 4096.
    max_frame_size, arena_size
        As for `serve`. Default 64 MB each.
    connect_timeout
        Seconds within which the server has to answer to a new connection: above 0. Default 2. Between two attempts
        the client waits 0.05 s, and twice as long each time up to 1 s.
    name
        Shown by `repr`. Default None: "RemoteBatcher".

    Raises OptionError for values out of range.
    """
    if isinstance(codec, str) and codec not in CODECS:
        msg = f"codec must be one of {', '.join(CODECS)}, not {codec!r}"
        raise OptionError(msg)
    seconds = as_float(connect_timeout)
    if seconds is None or not 0 < seconds < float("inf"):
        msg = f"connect_timeout must be a number of seconds above 0, not {connect_timeout!r}"
        raise OptionError(msg)
    options = Options(
        timeout=timeout,
        convert=convert,
        group_by=group_by,
        cost=cost,
        length=length,
        max_batch_cost=None if cost is None else UNLIMITED,
        max_queue_size=whole_number("max_pending", max_pending),
        name=name,
    )
    link = Link(
        addresses.checked_path(path),
        codec,
        max_frame_size=max_frame_size,
        arena_size=arena_size,
        connect_timeout=seconds,
        values=(cost is not None, length is not None),
    )
    return RemoteBatcher(options, link)
