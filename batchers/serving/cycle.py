"""One request on the direct path."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

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


class Connection(Protocol):
    """What a cycle needs of the protocol of its connection."""

    def submit(self, cycle: Cycle, /) -> None:
        """Hand the item of a complete request to the batcher."""
        ...

    def answer(self, cycle: Cycle, /) -> None:
        """Write the answer of a request that has its outcome."""
        ...


class Turn:
    """Requests and outcomes that the connections of one event loop see to together, in its next turn.

    A batcher gets all items of a turn before a thread can take the first one: with a batch for each item that
    comes, batches are small. And it can start the next batch before the answers of the last one are written.
    """

    __slots__ = ("_answers", "_loop", "_requests")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Initialise an empty turn."""
        self._loop = loop
        self._requests: list[Cycle] = []
        self._answers: list[Cycle] = []

    def submit(self, cycle: Cycle) -> None:
        """Hand in the item of a request in the next turn."""
        if not self._requests:
            self._loop.call_soon(self._submit)
        self._requests.append(cycle)

    def _submit(self) -> None:
        cycles, self._requests = self._requests, []
        rest = iter(cycles)
        try:
            for cycle in rest:
                cycle.connection.submit(cycle)
        finally:  # an exception, which is not expected, is that of one request
            for cycle in rest:
                self.submit(cycle)

    def answer(self, cycle: Cycle) -> None:
        """Answer a request in the next turn."""
        if not self._answers:
            self._loop.call_soon(self._answer)
        self._answers.append(cycle)

    def _answer(self) -> None:
        cycles, self._answers = self._answers, []
        rest = iter(cycles)
        try:
            for cycle in rest:
                cycle.connection.answer(cycle)
        finally:
            for cycle in rest:
                self.answer(cycle)


class Cycle:
    """One request on the direct path; its batcher uses it as the future of the item.

    It has the attributes of uvicorn's RequestResponseCycle that others use.
    """

    # Defaults are attributes of the class: most requests change few of them.
    disconnected = False
    is_decided = False  # True as soon as there is an answer; it may have to wait until the client reads
    response_complete = False  # True when the answer is written
    more_body = True
    size = 0  # of the parts
    seconds: float | None = None
    timer: asyncio.TimerHandle | None = None
    request: Any = None  # of the batcher, from the acceptance to the outcome
    has_outcome = False
    result: Any = None
    error: Exception | None = None

    def __init__(
        self, endpoint: DirectEndpoint, path: bytes, connection: Connection, turn: Turn, *, keep_alive: bool
    ) -> None:
        """Begin a request to `path`."""
        self.endpoint = endpoint
        self.path = path
        self.connection = connection
        self.turn = turn
        self.keep_alive = keep_alive
        self.parts: list[bytes] = []  # of the body

    # Of a future

    def done(self) -> bool:
        """Return True if nobody waits for the outcome any more."""
        return self.has_outcome or self.disconnected

    def set_result(self, result: object) -> None:
        """Keep the result, and answer with it."""
        self.result = result
        self._end()

    def set_exception(self, error: Exception) -> None:
        """Keep the error, and answer with it."""
        self.error = error
        self._end()

    def _end(self) -> None:
        self.has_outcome = True
        self.request = None
        self.turn.answer(self)

    # Of a cycle of uvicorn

    @property
    def message_event(self) -> Cycle:
        """The object whose `set` uvicorn calls when the connection is lost."""
        return self

    def set(self) -> None:
        """Withdraw the item if the client has left."""
        if self.disconnected:
            self.stop_timer()
            request, self.request = self.request, None
            if request is not None:
                self.endpoint.driver.cancel(request, request.loop)

    def stop_timer(self) -> None:
        """Do not limit the time of the body any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
