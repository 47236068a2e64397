"""The direct path: the protocol of uvicorn answers predictions itself, without an ASGI cycle for each request.

`DirectProtocol` is uvicorn's protocol on httptools. It answers `POST` of one item to a known path, and passes all
other requests on to its base class, which calls the ASGI application. A request with a query, `Expect`, `Upgrade`
or HTTP/1.0 is one of the others, and so is one that comes before the answer to an earlier one is written.

This module is the only one that names what is internal to uvicorn's protocol; a test fails if that changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from .answers import REFUSALS, BadRequestError, BodyTooLargeError, BodyTooSlowError, answer_to, place_of
from .cycle import Cycle, DirectEndpoint, Turn
from .endpoints import CLOSE, FAILED, SAFETY, ServedApp

logger = logging.getLogger("uvicorn.error")

HEAD_LIMIT = 65_536
"""Bytes of the head of a request; a longer one is answered with 431."""

UNUSUAL = frozenset((b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"))
"""Headers of requests that take the way through ASGI."""

_ANSWERED = (*REFUSALS, BadRequestError, MemoryError)
_CLOSE_HEAD = b"%s: %s\r\n" % CLOSE


class DirectProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, which answers predictions itself; `use_direct_path` makes subclasses."""

    endpoints: Mapping[bytes, DirectEndpoint]
    turn: Turn
    starts: dict[int, tuple[object, bytes]]
    is_draining: Callable[[], bool]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Initialise the protocol of one connection."""
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = self._in_message = False
        self._begun = 0  # messages
        self._head_size = 0  # bytes of its parts so far, and of trailers
        self._head_chunks = 0  # bytes of chunks of data that have nothing but this head, or nothing of a body
        self._has_moved = False  # True if a chunk of data had a part of a body, or its end
        # The last headers that were good for an endpoint, and its seconds: most clients send the same ones again.
        self._known: tuple[object, list[tuple[bytes, bytes]], float | None] = None, [], None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_until = 0.0
        self._is_refused = False  # True after 431: nothing more is read
        self._held: tuple[Cycle, bytes] | None = None  # an answer that waits until the client reads

    # What comes

    def data_received(self, data: bytes) -> None:
        """Feed the parser; limit the size of a head, and the time of a body that is not complete yet."""
        if self._is_refused:
            return
        was_in_head, was_in_message, begun = self._in_head, self._in_message, self._begun
        self._has_moved = False
        super().data_received(data)
        if not self._in_message:
            return
        if self._has_moved:
            self._head_chunks = 0
        elif was_in_head or was_in_message or self._begun == begun + 1:
            # The parser keeps the value of a header, or of a trailer, until all of it is there.
            self._head_chunks += len(data)
        cycle: Any = self.cycle
        if self._in_head:
            if self._head_chunks > HEAD_LIMIT:
                self._refuse_head()
        elif self._head_chunks > HEAD_LIMIT:
            self._refuse_trailers(cycle)
        elif type(cycle) is Cycle and cycle.more_body and cycle.timer is None and not cycle.is_decided:
            seconds = cycle.endpoint.endpoint.body_timeout
            cycle.timer = self.loop.call_later(seconds, self._fail, cycle, BodyTooSlowError())

    def on_message_begin(self) -> None:
        """Begin a request; its scope is only made for ASGI."""
        self._unset_keepalive_if_required()  # an answer to the request before, in the same data, has set it
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = self._in_message = True
        self._begun += 1
        self._head_size = self._head_chunks = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        self.url += url
        self._head_size += len(url)
        if self._head_size > HEAD_LIMIT:
            raise ValueError  # after which uvicorn sends an answer

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header; drop trailers."""
        self._head_size += len(name) + len(value) + 4
        if self._head_size > HEAD_LIMIT:
            raise ValueError
        if self._in_head:
            self.headers.append((name, value))

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has too long a head."""
        if self._head_size > HEAD_LIMIT:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        """Begin the direct path, or pass the request on to ASGI."""
        self._in_head = False
        endpoint = self.endpoints.get(self.url)
        before: Any = self.cycle
        parser: Any = self.parser
        if (
            endpoint is None
            or (before is not None and not before.response_complete)
            or parser.get_method() != b"POST"
        ):
            self._begin_asgi()
            return
        known, headers, seconds = self._known
        if known is endpoint and headers == self.headers:
            self._begin_cycle(endpoint).seconds = seconds
            return
        headers = [(name.lower(), value) for name, value in self.headers]
        names = {name for name, _ in headers}
        if parser.get_http_version() != "1.1" or not UNUSUAL.isdisjoint(names):
            self._begin_asgi()
            return
        cycle = self._begin_cycle(endpoint)
        try:
            cycle.seconds = endpoint.endpoint.look_at_headers(headers)
        except BadRequestError as error:
            self._fail(cycle, error)
            return
        if b"connection" not in names:  # with it, HTTP/1.0 and the same headers would mean something else
            self._known = endpoint, self.headers, cycle.seconds

    def _begin_cycle(self, endpoint: DirectEndpoint) -> Cycle:
        parser: Any = self.parser
        cycle = Cycle(endpoint, self.url, self, self.turn, keep_alive=parser.should_keep_alive())
        self.cycle = cycle  # type: ignore[assignment]  # it has what is used of one
        return cycle

    def _begin_asgi(self) -> None:
        url, headers = self.url, [(name.lower(), value) for name, value in self.headers]
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._has_moved = True
        cycle: Any = self.cycle
        if type(cycle) is not Cycle:
            super().on_body(body)
        elif not cycle.is_decided:
            cycle.parts.append(body)
            cycle.size += len(body)
            if cycle.size > cycle.endpoint.endpoint.max_body_size:
                self._fail(cycle, BodyTooLargeError(cycle.endpoint.endpoint.max_body_size))

    def on_message_complete(self) -> None:
        """Hand the item to the batcher."""
        self._in_message = False
        self._has_moved = True
        cycle: Any = self.cycle
        if type(cycle) is not Cycle:
            super().on_message_complete()
            return
        cycle.more_body = False
        if not cycle.is_decided:
            cycle.stop_timer()
            self.turn.submit(cycle)

    def submit(self, cycle: Cycle) -> None:
        """Hand the item to the batcher, or answer why not."""
        if cycle.disconnected:
            return
        direct = cycle.endpoint
        try:
            direct.endpoint.check_room()
            parts = cycle.parts
            item = direct.endpoint.parse(parts[0] if len(parts) == 1 else b"".join(parts))
            parts.clear()
            cycle.request = direct.driver.accept(item, cycle.seconds, 0, cycle, self.loop)
        except Exception as error:  # noqa: BLE001 - of the user's callbacks, too
            self._fail(cycle, error)

    # What goes

    def answer(self, cycle: Cycle) -> None:
        """Answer with the outcome of the item."""
        error, cycle.error = cycle.error, None
        result, cycle.result = cycle.result, None
        if cycle.disconnected:
            return
        if error is not None:
            self._fail(cycle, error)
            return
        try:
            status, head, body = cycle.endpoint.endpoint.answer(result)
        except Exception as unsayable:  # noqa: BLE001 - of the user's types
            self._fail(cycle, unsayable)
            return
        if status == FAILED:
            cycle.keep_alive = False  # as after an error of an application
        self._respond(cycle, status, head, body)

    def _fail(self, cycle: Cycle, error: BaseException) -> None:
        if cycle.disconnected or cycle.is_decided:
            return
        if isinstance(error, _ANSWERED):
            if isinstance(error, MemoryError):
                logger.error("No memory for a request: MemoryError")
            try:
                answer = answer_to(error)
                head, body = answer.encoded()
            except Exception as unsayable:  # noqa: BLE001 - a text of the user's that cannot be encoded
                error = unsayable
            else:
                if "Connection" in answer.headers:
                    cycle.keep_alive = False
                self._respond(cycle, answer.status, head, body)
                return
        logger.error("A prediction failed: %s", place_of(error))
        cycle.keep_alive = False  # as after an error of an application
        body = b"Internal Server Error"
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body)
        self._respond(cycle, FAILED, head, body)

    def _respond(self, cycle: Cycle, status: int, head: bytes, body: bytes) -> None:
        cycle.stop_timer()
        cycle.is_decided = True
        cycle.parts.clear()
        if cycle.disconnected or self.transport.is_closing():
            cycle.response_complete = True
            return
        if self.is_draining():
            cycle.keep_alive = False
        if self.access_log:
            self.access_logger.info(
                '%s - "%s %s HTTP/%s" %d',
                "{}:{}".format(*self.client) if self.client else "",
                "POST",
                self.root_path + cycle.path.decode("ascii", "replace"),
                "1.1",
                status,
            )
        close = b"" if cycle.keep_alive else _CLOSE_HEAD
        output = b"".join((self._start_of(status), head, close, b"\r\n", body))
        if self.flow.write_paused:
            self._held = cycle, output
        else:
            self._write(cycle, output)

    def _write(self, cycle: Cycle, output: bytes) -> None:
        cycle.response_complete = True
        self.transport.write(output)
        if not cycle.keep_alive:
            self.transport.close()
        if self.pipeline or self.transport.is_closing():
            self.on_response_complete()
            return
        # As `on_response_complete`, with one timer for many answers.
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_until = self.loop.time() + self.timeout_keep_alive
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)
        self.timeout_keep_alive_task = self._idle_timer

    def _unset_keepalive_if_required(self) -> None:
        if self.timeout_keep_alive_task is self._idle_timer:
            self.timeout_keep_alive_task = None  # the timer goes on, and looks
        else:
            super()._unset_keepalive_if_required()

    def _look_whether_idle(self) -> None:
        is_idle = self.timeout_keep_alive_task is self._idle_timer
        self._idle_timer = None
        if not is_idle:
            return
        self.timeout_keep_alive_task = None
        seconds = self._idle_until - self.loop.time()
        if seconds > 0:
            self._idle_timer = self.loop.call_later(seconds, self._look_whether_idle)
            self.timeout_keep_alive_task = self._idle_timer
        else:
            self.timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Withdraw what the client waits for."""
        super().connection_lost(exc)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        cycle: Any = self.cycle
        if type(cycle) is Cycle:
            self.cycle = None  # type: ignore[assignment]  # they refer to each other

    def resume_writing(self) -> None:
        """Write the answer that has waited for a client that did not read."""
        super().resume_writing()
        if self._held is not None:
            (cycle, output), self._held = self._held, None
            if not cycle.disconnected:
                self._write(cycle, output)

    def _start_of(self, status: int) -> bytes:
        """Return the first line and the headers of all answers; uvicorn makes new ones of its own each second."""
        defaults = self.server_state.default_headers
        known, start = self.starts.get(status, (None, b""))
        if known is not defaults:
            lines = (b"%s: %s\r\n" % header for header in (*defaults, *SAFETY))
            start = STATUS_LINE[status] + b"".join(lines)
            self.starts[status] = defaults, start
        return start

    def _refuse_head(self) -> None:
        """Answer 431 to a head that is too long; close the connection, after the answers to earlier requests."""
        self._is_refused = True
        before: Any = self.cycle
        if before is not None and not before.response_complete:
            before.keep_alive = False  # then its answer closes the connection
            self.flow.pause_reading()
            return
        body = b"the head of the request has more than %d bytes" % HEAD_LIMIT
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body)
        self.transport.write(b"".join((self._start_of(431), head, _CLOSE_HEAD, b"\r\n", body)))
        self.transport.close()

    def _refuse_trailers(self, cycle: Any) -> None:  # noqa: ANN401 - ours, or one of uvicorn's
        """Close the connection of a body that does not end: its trailers, or the head of a chunk, are too long."""
        self._is_refused = True
        if type(cycle) is Cycle:
            cycle.keep_alive = False
            self._fail(cycle, BodyTooLargeError(cycle.endpoint.endpoint.max_body_size))
        if not self.transport.is_closing():
            self.transport.close()


def use_direct_path(server: uvicorn.Server, app: ServedApp, endpoints: Mapping[str, DirectEndpoint]) -> str:
    """Let the connections of a server take the direct path; return why they do not, in words, or an empty text.

    Call it before the server accepts connections.
    """
    config = server.config
    loaded: Any = config.loaded_app
    if isinstance(loaded, ProxyHeadersMiddleware):
        loaded = loaded.app
    if config.http_protocol_class is not HttpToolsProtocol:
        return f"the HTTP protocol is {getattr(config.http_protocol_class, '__name__', 'another one')}"
    if loaded is not app:
        return f"the application is inside of {type(loaded).__name__}"
    if config.limit_concurrency is not None:
        return "uvicorn limits the concurrency"
    between: str = app.between()
    if not between:
        bound = {
            "endpoints": {path.encode(): endpoint for path, endpoint in endpoints.items()},
            "starts": {},
            "turn": Turn(asyncio.get_running_loop()),
            "is_draining": staticmethod(app.is_draining),
        }
        config.http_protocol_class = type("DirectProtocol", (DirectProtocol,), bound)
    return between
