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

from batchers import Batcher

from .answers import REFUSALS, BadRequestError, BodyTooLargeError, BodyTooSlowError, answer_to
from .endpoints import CLOSE, FAILED, JSON, SAFETY, Endpoint, ServedApp

logger = logging.getLogger("uvicorn.error")

HEAD_LIMIT = 65_536
"""Bytes of the head of a request; a longer one is answered with 431."""

UNUSUAL = frozenset((b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"))
"""Headers of requests that take the way through ASGI."""

_SAFE_HEAD = b"".join(b"%s: %s\r\n" % header for header in SAFETY)
_JSON_HEAD = b"%s: %s\r\n" % JSON
_CLOSE_HEAD = b"%s: %s\r\n" % CLOSE


class DirectEndpoint:
    """An endpoint whose items go to a batcher: what the protocol needs of it."""

    def __init__(self, endpoint: Endpoint, batcher: Batcher[Any, Any]) -> None:
        """Store both."""
        self.endpoint = endpoint
        # As `Batcher.process`, without a coroutine and a task for each request.
        self.driver: Any = getattr(batcher, "_Batcher__batchers_driver")  # noqa: B009 - it is private


class _Cycle:
    """One request on the direct path. It has the attributes of uvicorn's RequestResponseCycle that others use."""

    __slots__ = (
        *("body", "disconnected", "endpoint", "future", "keep_alive", "more_body", "on_gone", "path", "request"),
        *("response_complete", "seconds", "timer"),
    )

    def __init__(self, endpoint: DirectEndpoint, path: bytes, *, keep_alive: bool) -> None:
        self.endpoint = endpoint
        self.path = path
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.more_body = True
        self.body = b""
        self.seconds: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[Any] | None = None
        self.request: Any = None

    @property
    def message_event(self) -> _Cycle:
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
        self._in_head = False
        self._head_size = 0
        self._is_unusual = False
        self._held: tuple[_Cycle, bytes] | None = None  # an answer that waits until the client reads
        self._defaults: tuple[object, bytes] = None, b""

    # What comes

    def data_received(self, data: bytes) -> None:
        """Feed the parser; limit the size of a head, and the time of a body that is not complete yet."""
        super().data_received(data)
        cycle: Any = self.cycle
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT:
                self._refuse_head()
        elif type(cycle) is _Cycle and cycle.more_body and cycle.timer is None and not cycle.response_complete:
            seconds = cycle.endpoint.endpoint.body_timeout
            cycle.timer = self.loop.call_later(seconds, self._fail, cycle, BodyTooSlowError())

    def on_message_begin(self) -> None:
        """Begin a request; its scope is only made for ASGI."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._is_unusual = False
        self._in_head = True
        self._head_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header."""
        name = name.lower()
        if name in UNUSUAL:
            self._is_unusual = True
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the direct path, or pass the request on to ASGI."""
        self._in_head = False
        endpoint = self.endpoints.get(self.url)
        before: Any = self.cycle
        busy = before is not None and not before.response_complete
        parser = self.parser
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
        cycle = _Cycle(endpoint, self.url, keep_alive=parser.should_keep_alive())
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
        cycle: Any = self.cycle
        if type(cycle) is not _Cycle:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.body = cycle.body + body if cycle.body else body
            if len(cycle.body) > cycle.endpoint.endpoint.max_body_size:
                self._fail(cycle, BodyTooLargeError(cycle.endpoint.endpoint.max_body_size))

    def on_message_complete(self) -> None:
        """Hand the item to the batcher."""
        cycle: Any = self.cycle
        if type(cycle) is not _Cycle:
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.more_body = False
            cycle.stop_timer()
            self._process(cycle)

    def _process(self, cycle: _Cycle) -> None:
        direct = cycle.endpoint
        future: asyncio.Future[Any] = self.loop.create_future()
        try:
            item = direct.endpoint.parse(cycle.body)
            cycle.body = b""
            cycle.request = direct.driver.accept(item, cycle.seconds, 0, future, self.loop)
        except Exception as error:  # noqa: BLE001 - of the user's callbacks, too
            future.cancel()
            self._fail(cycle, error)
            return
        cycle.future = future
        future.add_done_callback(partial(self._answer, cycle))

    # What goes

    def _answer(self, cycle: _Cycle, future: asyncio.Future[Any]) -> None:
        if cycle.disconnected or future.cancelled():
            return
        cycle.future = cycle.request = None
        error = future.exception()
        if error is not None:
            self._fail(cycle, error)
            return
        try:
            body = cycle.endpoint.endpoint.dump(future.result())
        except Exception as unsayable:  # noqa: BLE001 - of the user's types
            self._fail(cycle, unsayable)
            return
        self._respond(cycle, 200, b"%scontent-length: %d\r\n" % (_JSON_HEAD, len(body)), body)

    def _fail(self, cycle: _Cycle, error: BaseException) -> None:
        if cycle.disconnected or cycle.response_complete:
            return
        if isinstance(error, (*REFUSALS, BadRequestError, MemoryError)):
            if isinstance(error, MemoryError):
                logger.error("No memory for a request: MemoryError")
            answer = answer_to(error)
            if "Connection" in answer.headers:  # it is "close", which `_respond` writes
                del answer.headers["Connection"]
                cycle.keep_alive = False
            self._respond(cycle, answer.status, *answer.encoded())
            return
        logger.error("Exception in a prediction\n", exc_info=error)
        cycle.keep_alive = False  # as uvicorn does after an error of an application
        body = b"Internal Server Error"
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body)
        self._respond(cycle, FAILED, head, body)

    def _respond(self, cycle: _Cycle, status: int, head: bytes, body: bytes) -> None:
        cycle.stop_timer()
        if self.transport.is_closing():
            cycle.response_complete = True
            return
        if self.is_draining():
            cycle.keep_alive = False
        if self.access_log:
            self.access_logger.info(
                '%s - "%s %s HTTP/%s" %d',
                "{}:{}".format(*self.client) if self.client else "",
                "POST",
                cycle.path.decode("ascii", "replace"),
                "1.1",
                status,
            )
        close = b"" if cycle.keep_alive else _CLOSE_HEAD
        output = b"".join((STATUS_LINE[status], self._default_head(), head, _SAFE_HEAD, close, b"\r\n", body))
        if self.flow.write_paused:
            self._held = cycle, output
        else:
            self._write(cycle, output)

    def _write(self, cycle: _Cycle, output: bytes) -> None:
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
        """Answer 431 to a head that is too long, and close the connection."""
        body = b"the head of the request has more than %d bytes" % HEAD_LIMIT
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body)
        self._in_head = False
        before: Any = self.cycle
        if before is None or before.response_complete:
            parts = (STATUS_LINE[431], self._default_head(), head, _SAFE_HEAD, _CLOSE_HEAD, b"\r\n", body)
            self.transport.write(b"".join(parts))
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
