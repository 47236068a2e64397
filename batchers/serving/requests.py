"""One request and a batcher: its deadline, and its cancellation when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from math import inf
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from batchers import Batcher

from .answers import RequestTimeoutError

T = TypeVar("T")
S = TypeVar("S")

LOOKS_AFTER = 0.02
"""Seconds after which a request that still waits looks whether its client is still there."""

HEADER = b"x-request-timeout"
"""The header by which a client says how many seconds it waits."""


async def process(
    batcher: Batcher[T, S], item: T, request: Request, *, timeout: float | None = None, priority: int = 0
) -> S:
    """Return the result of `item` for a request whose body has been read.

    If the client leaves, the item is withdrawn, and ClientDisconnect of starlette is raised.
    The deadline is the smallest of `timeout` (seconds; None: none), that of the header X-Request-Timeout, and the
    option of the batcher. Raises the errors of `Batcher.process`, and RequestTimeoutError for a header that is
    no number above 0; `add_error_handlers` makes answers of them.
    """
    given = seconds_of(request.scope["headers"])
    limit = min((each for each in (timeout, given) if each is not None), default=None)
    return await until_client_leaves(batcher.process(item, timeout=limit, priority=priority), request.receive)


def seconds_of(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return the seconds that the first header X-Request-Timeout says; None: there is none.

    Raises RequestTimeoutError for a value that is no number above 0.
    """
    for name, value in headers:
        if name == HEADER:
            return parse_seconds(value)
    return None


def parse_seconds(text: bytes) -> float:
    """Return the number of seconds in a header. Raises RequestTimeoutError for other values."""
    try:
        seconds = float(text)
    except ValueError:
        raise RequestTimeoutError from None
    if not 0 < seconds < inf:
        raise RequestTimeoutError
    return seconds


async def until_client_leaves(result: Awaitable[S], receive: Receive) -> S:
    """Return the result; if the client leaves before, cancel it and raise ClientDisconnect."""
    watch = _Watch(receive)
    try:
        return await result
    except asyncio.CancelledError:
        if not watch.has_left():
            raise
        raise ClientDisconnect from None
    finally:
        watch.end()


class _Watch:
    """Cancels the task of a request when its client leaves. It begins after `LOOKS_AFTER`."""

    __slots__ = ("_left", "_receive", "_request", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._request = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._left = False
        self._timer = asyncio.get_running_loop().call_later(LOOKS_AFTER, self._begin)

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._request is not None:
            self._request.cancel()

    def has_left(self) -> bool:
        """Return True if the client has left; the request is then no longer cancelled."""
        if self._left and self._request is not None:
            self._request.uncancel()
        return self._left

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
