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
from functools import partial
from typing import Any

import uvicorn
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from .answers import REFUSALS, BadRequestError, BodyTooLargeError, BodyTooSlowError, answer_to, place_of
from .cycle import Cycle, DirectEndpoint
from .endpoints import CLOSE, FAILED, JSON, SAFETY, ServedApp

logger = logging.getLogger("uvicorn.error")

HEAD_LIMIT = 65_536
"""Bytes of the head of a request; a longer one is answered with 431."""

UNUSUAL = frozenset((b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"))
"""Headers of requests that take the way through ASGI."""

_SAFE_HEAD = b"".join(b"%s: %s\r\n" % header for header in SAFETY)
_JSON_HEAD = b"%s: %s\r\n" % JSON
_CLOSE_HEAD = b"%s: %s\r\n" % CLOSE


class DirectProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, which answers predictions itself; `use_direct_path` makes subclasses."""

    endpoints: Mapping[bytes, DirectEndpoint]
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
        self._is_unusual = False
        self._is_refused = False  # True after 431: nothing more is read
        self._held: tuple[Cycle, bytes] | None = None  # an answer that waits until the client reads
        self._defaults: tuple[object, bytes] = None, b""

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
        self._is_unusual = False
        self._in_head = self._in_message = True
        self._begun += 1
        self._head_size = self._head_chunks = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header; drop trailers."""
        self._count(len(name) + len(value) + 4)
        if not self._in_head:
            return
        name = name.lower()
        if name in UNUSUAL:
            self._is_unusual = True
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        self.headers.append((name, value))

    def _count(self, size: int) -> None:
        """Count bytes of the head; for too many, raise ValueError, after which uvicorn sends an answer."""
        self._head_size += size
        if self._head_size > HEAD_LIMIT:
            raise ValueError

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
        busy = before is not None and not before.response_complete
        parser: Any = self.parser
        if (
            endpoint is None
            or self._is_unusual
            or busy
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or self.limit_concurrency is not None
        ):
            self._begin_asgi()
            return
        cycle = Cycle(endpoint, self.url, keep_alive=parser.should_keep_alive())
        self.cycle = cycle  # type: ignore[assignment]  # it has what is used of one
        try:
            cycle.seconds = endpoint.endpoint.look_at_headers(self.headers)
        except BadRequestError as error:
            self._fail(cycle, error)

    def _begin_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
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
            self._process(cycle)

    def _process(self, cycle: Cycle) -> None:
        direct = cycle.endpoint
        future: asyncio.Future[Any] = self.loop.create_future()
        try:
            direct.endpoint.check_room()
            item = direct.endpoint.parse(b"".join(cycle.parts))
            cycle.parts.clear()
            cycle.request = direct.driver.accept(item, cycle.seconds, 0, future, self.loop)
        except Exception as error:  # noqa: BLE001 - of the user's callbacks, too
            future.cancel()
            self._fail(cycle, error)
            return
        cycle.future = future
        future.add_done_callback(partial(self._answer, cycle))

    # What goes

    def _answer(self, cycle: Cycle, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return  # the client has left
        error = future.exception()
        cycle.future = cycle.request = None
        if error is not None:
            self._fail(cycle, error)
            return
        try:
            body = cycle.endpoint.endpoint.dump(future.result())
        except Exception as unsayable:  # noqa: BLE001 - of the user's types
            self._fail(cycle, unsayable)
            return
        self._respond(cycle, 200, b"%scontent-length: %d\r\n" % (_JSON_HEAD, len(body)), body)

    def _fail(self, cycle: Cycle, error: BaseException) -> None:
        if cycle.disconnected or cycle.is_decided:
            return
        if isinstance(error, (*REFUSALS, BadRequestError, MemoryError)):
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
        output = b"".join((STATUS_LINE[status], self._default_head(), head, _SAFE_HEAD, close, b"\r\n", body))
        if self.flow.write_paused:
            self._held = cycle, output
        else:
            self._write(cycle, output)

    def _write(self, cycle: Cycle, output: bytes) -> None:
        cycle.response_complete = True
        self.transport.write(output)
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def resume_writing(self) -> None:
        """Write the answer that has waited for a client that did not read."""
        super().resume_writing()
        if self._held is not None:
            (cycle, output), self._held = self._held, None
            if not cycle.disconnected:
                self._write(cycle, output)

    def _default_head(self) -> bytes:
        """Return the headers that uvicorn adds to all answers; it makes a new list of them each second."""
        headers = self.server_state.default_headers
        if self._defaults[0] is not headers:
            self._defaults = headers, b"".join(b"%s: %s\r\n" % header for header in headers)
        return self._defaults[1]

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
        parts = (STATUS_LINE[431], self._default_head(), head, _SAFE_HEAD, _CLOSE_HEAD, b"\r\n", body)
        self.transport.write(b"".join(parts))
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
    between: str = app.between()
    if not between:
        bound = {
            "endpoints": {path.encode(): endpoint for path, endpoint in endpoints.items()},
            "is_draining": staticmethod(app.is_draining),
        }
        config.http_protocol_class = type("DirectProtocol", (DirectProtocol,), bound)
    return between
