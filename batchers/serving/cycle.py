"""One request on the direct path."""

from __future__ import annotations

import asyncio
from typing import Any

from batchers import Batcher

from .endpoints import Endpoint


class DirectEndpoint:
    """An endpoint whose items go to a batcher: what the protocol needs of it."""

    def __init__(self, endpoint: Endpoint, batcher: Batcher[Any, Any]) -> None:
        """Store both."""
        self.endpoint = endpoint
        # As `Batcher.process`, without a coroutine and a task for each request.
        self.driver = driver_of(batcher)


def driver_of(batcher: Batcher[Any, Any]) -> Any:  # noqa: ANN401 - of either backend
    """Return the driver of a batcher, which is private: subclasses may use all other names."""
    return getattr(batcher, "_Batcher__batchers_driver")  # noqa: B009


class Cycle:
    """One request on the direct path. It has the attributes of uvicorn's RequestResponseCycle that others use."""

    __slots__ = (
        *(
            "disconnected",
            "endpoint",
            "future",
            "is_decided",
            "keep_alive",
            "more_body",
            "parts",
            "path",
            "request",
        ),
        *("response_complete", "seconds", "size", "timer"),
    )

    def __init__(self, endpoint: DirectEndpoint, path: bytes, *, keep_alive: bool) -> None:
        """Begin a request to `path`."""
        self.endpoint = endpoint
        self.path = path
        self.keep_alive = keep_alive
        self.disconnected = False
        self.is_decided = False  # True as soon as there is an answer; it may have to wait until the client reads
        self.response_complete = False  # True when the answer is written
        self.more_body = True
        self.parts: list[bytes] = []  # of the body
        self.size = 0  # of the parts
        self.seconds: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[Any] | None = None
        self.request: Any = None

    @property
    def message_event(self) -> Cycle:
        """The object whose `set` uvicorn calls when the connection is lost."""
        return self

    def set(self) -> None:
        """Withdraw the item if the client has left."""
        if self.disconnected:
            self.stop_timer()
            future, self.future = self.future, None
            if future is not None and not future.done():
                future.cancel()
                self.endpoint.driver.cancel(self.request, future.get_loop())

    def stop_timer(self) -> None:
        """Do not limit the time of the body any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
