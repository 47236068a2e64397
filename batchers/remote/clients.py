"""One client of a server: its calls on their way to the batcher, and their outcomes on the way back."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from itertools import repeat
from math import inf
from typing import Any, Protocol

from batchers.batcher import Batcher
from batchers.core import messages
from batchers.core.group_queue import QUEUED, Request
from batchers.errors import BatcherError, BatcherStoppedError, OptionError

from .codecs import Codec, NotDecodedError, from_json, not_encoded, to_json
from .columns import Calls, pack_outcomes, unpack_calls
from .frames import ANSWER, CALLS, FORCED, HELLO, OUTCOMES, QUESTION, WITHDRAWN, Frame, FrameError, size_of
from .stream import Stream
from .wire_errors import to_wire

logger = logging.getLogger("batchers")

MOST_UNSENT = 1_000_000
"""Bytes that wait for a client that does not read them, from which on nothing is read from this client either."""

_HEADROOM = 12_000
"""Bytes of a frame that are not its items or results, for each of them: an error has the longest text."""


class Served(Protocol):
    """What a connection needs of its server."""

    path: str
    codec: Codec
    batcher: Batcher[Any, Any]
    driver: Any
    answers: Any
    max_frame_size: int
    arena_size: int

    def greeting(self) -> dict[str, Any]:
        """Return what a client has to know."""
        ...

    def forget(self, connection: ClientConnection, /) -> None:
        """Remove a connection that has ended."""
        ...


class _Call:
    """One call of a client; its batcher uses it as the future of the item."""

    __slots__ = ("connection", "number", "request")

    def __init__(self, connection: ClientConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.request: Request[Any] | None = None

    def done(self) -> bool:
        """Return True if the client does not wait for this call any more."""
        return self.number not in self.connection.calls

    def set_result(self, result: object) -> None:
        """Send the result in the next turn of the loop."""
        self.connection.end(self, result, None)

    def set_exception(self, error: Exception) -> None:
        """Send the error in the next turn of the loop."""
        self.connection.end(self, None, error)


class ClientConnection:
    """One client."""

    def __init__(self, server: Served, accepted: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Use a socket that was accepted. Raises OSError if there is no memory for an arena."""
        self._server = server
        self._loop = loop
        self._codec: Any = server.codec
        self._encode_error = getattr(server.codec, "encode_error", lambda _: None)
        self._stream = Stream(accepted, server.max_frame_size, server.arena_size)
        self.calls: dict[int, _Call] = {}
        self._last_number = 0
        self._ended: list[tuple[int, Any, Exception | None]] = []
        self._questions: dict[int, asyncio.Task[None]] = {}
        self._flushes = False
        self._reads = False
        self._writes = False
        self._is_closed = False

    def greet(self) -> None:
        """Send the first frame, and read what comes."""
        self._stream.greet(self._server.greeting())
        self._read()
        self._flush()

    def _read(self) -> None:
        self._reads = True
        self._loop.add_reader(self._stream.file, self._readable)

    def _readable(self) -> None:
        try:
            for frame in self._stream.receive():
                self._handle(frame)
                if self._is_closed:
                    return
        except (EOFError, ConnectionError):
            self.close(None)
        except BlockingIOError:
            return
        except Exception as error:  # noqa: BLE001 - whatever a client has sent: it ends this connection only
            self.close(error)

    def close(self, error: Exception | None) -> None:
        """End the connection, and withdraw the calls of the client."""
        if self._is_closed:
            return
        self._is_closed = True
        if error is not None:
            logger.warning("A connection to %s was ended: %s: %s", self._server.path, type(error).__name__, error)
        self._loop.remove_reader(self._stream.file)
        self._loop.remove_writer(self._stream.file)
        self._stream.close()
        self._server.forget(self)
        for task in list(self._questions.values()):
            task.cancel()
        calls, self.calls = self.calls, {}
        for call in calls.values():
            self._withdraw(call)

    # What comes

    def _handle(self, frame: Frame) -> None:
        if frame.kind == HELLO:
            self._stream.meet(frame)
        elif frame.kind == CALLS:
            self._take(frame)
            return
        elif frame.kind == WITHDRAWN:
            for number in from_json(frame.parts[0].data):
                call = self.calls.pop(number, None)
                if call is not None:
                    self._withdraw(call)
                elif number in self._questions:
                    self._questions[number].cancel()
        elif frame.kind == FORCED:
            for call in [each for each in self.calls.values() if _waits(each)]:
                request: Any = call.request
                self._withdraw(call)
                call.set_exception(BatcherStoppedError(messages.stopped(request)))
        elif frame.kind == QUESTION:
            number, name = from_json(frame.parts[0].data)
            task = self._loop.create_task(self._answer(number, name, bytes(frame.parts[1].data)))
            self._questions[number] = task
            task.add_done_callback(lambda _: self._questions.pop(number, None))
        else:
            msg = f"a client sends no frames of the kind {frame.kind}"
            raise FrameError(msg)
        frame.free()

    def _withdraw(self, call: _Call) -> None:
        request, call.request = call.request, None
        if request is not None:
            self._server.driver.cancel(request, self._loop)

    def _take(self, frame: Frame) -> None:
        """Submit the items of a frame."""
        about, *items = frame.parts
        calls = unpack_calls(about.data)
        if about.free is not None:
            about.free()
        values = self._codec.decode(items, len(calls.numbers))
        if not self._codec.keeps:
            for part in items:
                if part.free is not None:
                    part.free()
        requests = [
            self._request(self._call(number), value, *options)
            for number, value, *options in zip(calls.numbers, values, *_columns(calls), strict=False)
        ]
        if calls.sizes is None:
            self._admit([each for each in requests if each is not None])
        else:
            start = 0
            for size in calls.sizes:
                self._admit_together(calls.numbers[start : start + size], requests[start : start + size])
                start += size

    def _call(self, number: int) -> _Call:
        if number <= self._last_number:
            msg = f"the number {number} of a call does not come after {self._last_number}"
            raise FrameError(msg)
        self._last_number = number
        call = self.calls[number] = _Call(self, number)
        return call

    def _request(  # noqa: PLR0917 - in the order of the columns
        self, call: _Call, value: object, seconds: float | None, priority: int, group: object, cost: object
    ) -> Request[Any] | None:
        """Return the request of a call, or None if it has ended with an error."""
        driver = self._server.driver
        if isinstance(value, NotDecodedError):
            call.set_exception(value)
            return None
        request: Request[Any]
        try:
            if driver.requests.plain and type(priority) is int and cost is None:
                deadline = inf if seconds is None else driver.clock() + seconds
                request = Request(value, None, priority, 0.0, deadline, call, self._loop)
            else:
                request = driver.requests.make(
                    value, None if seconds == inf else seconds, priority, call, self._loop, cost
                )
            if group is not None:
                request.group = _hashable(group)
        except Exception as error:  # noqa: BLE001 - of the callbacks of the batcher, too
            call.set_exception(error)
            return None
        call.request = request
        return request

    def _admit(self, requests: list[Request[Any]]) -> None:
        try:
            refused: Iterable[Any] = self._server.driver.admit(requests, self._loop, each=True)
        except Exception as error:  # noqa: BLE001 - no thread can start, for instance
            refused = [(request, error) for request in requests]
        for request, why in refused:
            request.future.request = None
            request.future.set_exception(why)

    def _admit_together(self, numbers: list[int], requests: list[Any]) -> None:
        """Accept the items of one call together, or none of them."""
        found: Exception | None = None
        if None not in requests:
            try:
                self._server.driver.admit(requests, self._loop)
            except Exception as error:  # noqa: BLE001 - as in `_admit`
                found = error
            else:
                return
        for number in numbers:
            call = self.calls.get(number)
            if call is not None:
                call.request = None
                call.set_exception(found or BatcherError("another item of the same call was refused"))

    async def _answer(self, number: int, name: str, said: bytes) -> None:
        function = self._server.answers.get(name)
        failed: list[Any] | None = None
        body = b""
        if function is None:
            failed = to_wire(OptionError(f"the server knows no {name!r}"))
        else:
            try:
                body = await function(said)
            except Exception as error:  # noqa: BLE001 - of the function
                failed = to_wire(error)
        if len(body) > self._stream.limit - _HEADROOM:
            failed, body = to_wire(self._too_large("an answer", len(body))), b""
        if not self._is_closed:
            self._stream.send(ANSWER, (to_json([number, failed]), body))
            self._flush_soon()

    # What goes

    def end(self, call: _Call, result: Any, error: Exception | None) -> None:  # noqa: ANN401 - the user's
        """Keep the outcome of a call, and send it in the next turn of the loop."""
        call.request = None
        if self.calls.pop(call.number, None) is None:
            return
        self._ended.append((call.number, result, error))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        if self._is_closed:
            return
        ended, self._ended = self._ended, []
        if ended:
            self._send_outcomes(ended)
        self._write()

    def _write(self) -> None:
        try:
            is_sent = self._stream.flush()
        except OSError:
            self.close(None)
            return
        if is_sent == self._writes:  # it changes
            self._writes = not is_sent
            if is_sent:
                self._loop.remove_writer(self._stream.file)
            else:
                self._loop.add_writer(self._stream.file, self._write)
        may_read = self._stream.unsent_bytes < MOST_UNSENT
        if may_read != self._reads:
            if may_read:
                self._read()
            else:
                self._reads = False
                self._loop.remove_reader(self._stream.file)

    def _send_outcomes(self, ended: list[tuple[int, Any, Exception | None]]) -> None:
        numbers: list[int] = []
        results: list[Any] = []
        errors: list[Any] = []
        for number, result, error in ended:
            said = result if error is None else self._encode_error(error)
            if error is None or said is not None:
                numbers.append(number)
                results.append(said)
            else:
                errors.append([number, *to_wire(error)])
        try:
            parts = self._codec.encode(results)
        except Exception as error:  # noqa: BLE001 - of the user's types
            if len(ended) > 1:
                for each in ended:
                    self._send_outcomes([each])
                return
            failed = not_encoded("a result", results[0], self._codec, error)
            numbers, parts, errors = [], self._codec.encode([]), [[ended[0][0], *to_wire(failed)]]
        if size_of(parts) > self._stream.limit - _HEADROOM * len(ended):
            self._send_less(ended, size_of(parts))
            return
        self._stream.send(OUTCOMES, (pack_outcomes(numbers, errors, healthy=self._server.batcher.healthy), *parts))

    def _send_less(self, ended: list[tuple[int, Any, Exception | None]], size: int) -> None:
        """Send outcomes that are too large for one frame in several frames."""
        if len(ended) > 1:
            middle = len(ended) // 2
            self._send_outcomes(ended[:middle])
            self._send_outcomes(ended[middle:])
            return
        self._send_outcomes([(ended[0][0], None, self._too_large("a result", size))])

    def _too_large(self, what: str, size: int) -> OptionError:
        limit = self._stream.limit
        return OptionError(
            f"{what} of {size} bytes, and a frame may have {limit}: raise max_frame_size at both ends"
        )


def _columns(calls: Calls) -> list[Iterable[Any]]:
    """Return seconds, priorities, groups and costs, with the defaults in the place of missing ones."""
    return [
        _NO_SECONDS if calls.seconds is None else calls.seconds,
        _NO_PRIORITIES if calls.priorities is None else calls.priorities,
        _NO_SECONDS if calls.groups is None else calls.groups,
        _NO_SECONDS if calls.costs is None else calls.costs,
    ]


_NO_SECONDS: Iterable[None] = repeat(None)
_NO_PRIORITIES: Iterable[int] = repeat(0)


def _waits(call: _Call) -> bool:
    return call.request is not None and call.request.state == QUEUED


def _hashable(group: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a group that has come as JSON, with tuples in the place of lists."""
    return tuple(_hashable(each) for each in group) if isinstance(group, list) else group
