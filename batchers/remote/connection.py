"""`Link`: the connection of a client, on its home loop: begin, loss, new attempts, and what is sent and received.

Its methods run on the home loop of the driver. The lock is for the short time in which a client moves to another
loop: the old one may still be in a callback. Futures are resolved without the lock.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextvars import Context
from math import inf
from typing import Any

from batchers.core.group_queue import Request
from batchers.core.outcomes import Err
from batchers.drivers.loops import Loop, call_soon_threadsafe, cancel_timer, running_loop
from batchers.errors import BatcherError, BatcherUnavailableError, OptionError

from . import addresses
from .codecs import Codec, agreed, from_json, to_json
from .frames import ANSWER, FORCED, HELLO, OUTCOMES, WITHDRAWN, Frame, FrameError
from .receiving import Calls, outcomes_of
from .sending import Settled, send_calls
from .stream import Stream
from .wire_errors import from_wire

logger = logging.getLogger("batchers")

NEW, CONNECTING, CONNECTED, LOST = "not connected yet", "connecting", "connected", "disconnected"

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to connect; each pause is twice the one before."""

MOST_UNSENT = 1_000_000
"""Bytes that wait for a server that does not read them, from which on calls wait here, as they are."""


class Link:
    """The connection of one client to its server."""

    clock = staticmethod(time.monotonic)

    def __init__(
        self,
        path: str,
        codec: str | Codec | None,
        *,
        max_frame_size: int,
        arena_size: int,
        connect_timeout: float,
        values: tuple[bool, bool],
    ) -> None:
        """Initialise the connection; nothing is connected. `values`: whether costs and lengths will be sent."""
        self.path = path
        self.state = NEW
        self.healthy = True
        self.next_attempt = -inf
        self.driver: Callable[[], Calls | None] = lambda: None
        self.kept: Any = None  # the driver, while calls wait for their answers
        self.lock = threading.RLock()  # the last reference to the driver may go under it, which closes
        self._named = codec
        self._codec: Any = None
        self._frame_size, self._arena_size, self._connect_timeout = max_frame_size, arena_size, connect_timeout
        self._values = values
        self._stream: Stream | None = None
        self._registered: Loop | None = None  # the loop that reads
        self._writes = False
        self._timer: asyncio.TimerHandle | None = None  # the end of an attempt, or the begin of the next one
        self._timer_loop: Loop | None = None
        self._pause = FIRST_PAUSE
        self._why: BatcherError = BatcherError()
        self._is_closed = False

    def unavailable(self) -> BatcherError:
        """Return the error for a call while there is no connection."""
        if isinstance(self._why, OptionError):
            return OptionError(str(self._why))
        seconds = max(self.next_attempt - self.clock(), 0.0)
        return BatcherUnavailableError(str(self._why), min(seconds, LONGEST_PAUSE))

    # Begin and end

    def arrive(self, loop: Loop) -> None:
        """Move to a loop, which runs this; the one before may have ended."""
        with self.lock:
            self._cancel_timer()
            if self._registered is not loop:
                self._forget_loop()
            if self._stream is not None:
                self._register(self._stream, loop)
                if self.state == CONNECTING:
                    self._set_timer(loop, self._connect_timeout, self._too_late)
            elif self.state == LOST and not self._is_closed:
                seconds = max(self.next_attempt - self.clock(), 0.0)
                self._set_timer(loop, seconds, self._try_again)

    def begin(self, loop: Loop) -> Settled:
        """Begin to connect, if it is time; return the calls that fail by that. The caller holds the lock."""
        if self._is_closed or self._stream is not None or self.clock() < self.next_attempt:
            return []
        self._cancel_timer()
        self.state = CONNECTING
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(self.path)
            addresses.check_peer(connection)
            stream = Stream(connection, self._frame_size, self._arena_size)
        except (OSError, BatcherError) as error:
            connection.close()
            return self._lose(error, loop)
        self._stream = stream
        stream.greet({})
        self._register(stream, loop)
        self._set_timer(loop, self._connect_timeout, self._too_late)
        try:
            stream.flush()
        except OSError as error:
            return self._lose(error, loop)
        return []

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        cancel_timer(self._timer_loop, timer)

    def _set_timer(self, loop: Loop, seconds: float, callback: Callable[[], object]) -> None:
        self._cancel_timer()
        self._timer_loop = loop
        self._timer = loop.call_later(seconds, callback, context=Context())

    def _register(self, stream: Stream, loop: Loop) -> None:
        self._registered = loop
        loop.add_reader(stream.file, self._readable)
        if self._writes:
            loop.add_writer(stream.file, self._writable)

    def _forget_loop(self) -> None:
        """See that the loop which has read until now does so no more."""
        loop, self._registered, stream = self._registered, None, self._stream
        if loop is None or stream is None or loop.is_closed():
            return
        if loop is running_loop() or not loop.is_running():
            _unregister(loop, stream)
        else:
            call_soon_threadsafe(loop, self._leave, loop, stream)

    def _leave(self, loop: Loop, stream: Stream) -> None:
        if stream is self._stream and self._registered is not loop:
            _unregister(loop, stream)

    def _drop(self) -> None:
        """Close the connection."""
        loop, stream = self._registered, self._stream
        self._stream = self._registered = None
        self._writes = False
        self._cancel_timer()
        if stream is None:
            return
        if loop is None or loop.is_closed():
            stream.close()
        elif loop is running_loop() or not loop.is_running():
            _unregister(loop, stream)
            stream.close()
        else:
            call_soon_threadsafe(loop, _unregister_and_close, loop, stream)

    def close(self) -> None:
        """End the connection for good; in any thread."""
        with self.lock:
            self._is_closed = True
            self._drop()

    def abandon_in_child(self) -> None:
        """Close the descriptors in the child of a fork; the loop of the parent goes on to use its own."""
        self.lock = threading.RLock()
        stream, self._stream, self._registered = self._stream, None, None
        if stream is not None:
            stream.close()
        self._timer = None
        self._writes = False
        self.kept = None
        self.state, self.next_attempt, self._pause = NEW, -inf, FIRST_PAUSE

    def _lose(self, error: BaseException, loop: Loop) -> Settled:
        """Be disconnected, and return all calls with their error. The caller holds the lock."""
        was = self.state
        why = str(error) or ("the server has ended the connection" if isinstance(error, EOFError) else repr(error))
        if isinstance(error, OptionError):
            self._why = error
        else:
            self._why = BatcherUnavailableError(
                f"no connection to the batcher at {self.path} ({why}): see that its process runs, and try again"
            )
        self._drop()
        self.state = LOST
        if was == CONNECTED:
            logger.warning("The connection to the batcher at %s is lost: %s", self.path, why)
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.next_attempt = self.clock() + pause
        if not self._is_closed:
            self._set_timer(loop, pause, self._try_again)
        driver = self.driver()
        if driver is None:
            return []
        return [(request, Err(self.unavailable())) for request in driver.take_all()]

    def _too_late(self) -> None:
        loop = asyncio.get_running_loop()
        with self.lock:
            if loop is not self._registered or self.state != CONNECTING:
                return
            settled = self._lose(TimeoutError(f"no answer within {self._connect_timeout} s"), loop)
        self._deliver(settled, loop)

    def _try_again(self) -> None:
        loop = asyncio.get_running_loop()
        driver = self.driver()
        if driver is None or driver.home is not loop:
            return
        self.next_attempt = min(self.next_attempt, self.clock())  # the timer of a loop may be a little early
        with self.lock:
            settled = self.begin(loop)
        self._deliver(settled, loop)

    def _deliver(self, settled: Settled, loop: Loop) -> None:
        driver = self.driver()
        if driver is not None:
            driver.deliver(settled, loop)

    # What comes

    def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        settled: Settled = []
        has_met = False
        try:
            with self.lock:
                stream = self._stream
                if stream is None or self._registered is not loop:
                    return
                try:
                    for frame in stream.receive():
                        has_met |= frame.kind == HELLO
                        self._handle(frame, stream, settled)
                except BlockingIOError:
                    pass
                except Exception as error:  # noqa: BLE001 - the end, or whatever the server has sent
                    settled += self._lose(error, loop)
        except BaseException:  # a signal handler: what has come may be lost, and with it the answer of a call
            with self.lock:
                settled += self._lose(BatcherError("an exception has interrupted the client"), loop)
            self._deliver(settled, loop)
            raise
        self._deliver(settled, loop)
        driver = self.driver()
        if has_met and driver is not None:
            driver.flush()

    def _handle(self, frame: Frame, stream: Stream, settled: Settled) -> None:
        driver = self.driver()
        if frame.kind == HELLO:
            self._meet(stream.meet(frame))
        elif frame.kind == OUTCOMES:
            outcomes, self.healthy = outcomes_of(frame, self._codec)
            for number, outcome in outcomes:
                found = None if driver is None else driver.take(number)
                if found is not None:  # otherwise its caller has left
                    settled.append((found, outcome))
            return
        elif frame.kind == ANSWER:
            number, error = from_json(frame.parts[0].data)
            request = None if driver is None else driver.take(number)
            if request is not None:
                payload = bytes(frame.parts[1].data)
                settled.append((request, payload if error is None else Err(from_wire(error))))
        else:
            msg = f"a server sends no frames of the kind {frame.kind}"
            raise FrameError(msg)
        frame.free()

    def _meet(self, about: dict[str, Any]) -> None:
        self._codec = agreed(self._named, about["codec"])
        sends_costs, sends_lengths = self._values
        for option, sends in (("cost", sends_costs), ("length", sends_lengths)):
            if sends and not about[option]:
                msg = f"connect() has the option {option}, and the batcher at {self.path} has not: give it to both"
                raise OptionError(msg)
        self._cancel_timer()
        if self._why.args:
            logger.info("Connected to the batcher at %s again", self.path)
        self.state, self._pause, self.next_attempt = CONNECTED, FIRST_PAUSE, -inf
        self._why = BatcherError()
        self.healthy = bool(about["healthy"])
        driver = self.driver()
        if driver is not None:
            driver.about = about["about"]

    # What goes

    def flush(
        self, calls: list[Sequence[Request[Any]]], withdrawn: list[int], loop: Loop, *, forced: bool
    ) -> Settled:
        """Send calls, and the numbers of those whose callers have left; return the calls that fail by that.

        `forced`: the calls that wait in the queue of the server are to fail. Calls that wait for the connection,
        or for a server that does not read, remain in the list.
        """
        settled: Settled = []
        try:
            with self.lock:
                self._flush(calls, withdrawn, loop, settled, forced=forced)
        except BaseException:  # a signal handler: a call may be lost
            with self.lock:
                settled += self._lose(BatcherError("an exception has interrupted the client"), loop)
            self._deliver(settled, loop)
            raise
        return settled

    def _flush(
        self,
        calls: list[Sequence[Request[Any]]],
        withdrawn: list[int],
        loop: Loop,
        settled: Settled,
        *,
        forced: bool,
    ) -> None:
        if self.state != CONNECTED:
            settled += self.begin(loop)
            if self.state == LOST:
                driver = self.driver()
                left = [] if driver is None else driver.take_all()
                settled += [(request, Err(self.unavailable())) for request in left]
            return
        stream = self._stream
        if stream is None or self._registered is not loop:
            return
        if calls and stream.unsent_bytes < MOST_UNSENT:
            taken = calls[:]
            calls.clear()
            failed = send_calls(taken, self._codec, stream, self.clock(), with_costs=True in self._values)
            settled += [each for each in failed if self._take(each[0]) is not None]
        if withdrawn:
            stream.send(WITHDRAWN, (to_json(withdrawn),))
        if forced:
            stream.send(FORCED, ())
        settled += self._write(stream, loop)

    def _take(self, request: Request[Any]) -> Request[Any] | None:
        driver = self.driver()
        return None if driver is None else driver.take(request.number)

    def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        driver = self.driver()
        if driver is not None and driver.home is loop:
            driver.flush()

    def _write(self, stream: Stream, loop: Loop) -> Settled:
        try:
            is_sent = stream.flush()
        except OSError as error:
            return self._lose(error, loop)
        if is_sent == self._writes:  # it changes
            self._writes = not is_sent
            if is_sent:
                loop.remove_writer(stream.file)
            else:
                loop.add_writer(stream.file, self._writable)
        return []


def _unregister(loop: Loop, stream: Stream) -> None:
    loop.remove_reader(stream.file)
    loop.remove_writer(stream.file)


def _unregister_and_close(loop: Loop, stream: Stream) -> None:
    _unregister(loop, stream)
    stream.close()


def finalize(link: Link, driver: Calls) -> None:
    """Close the connection when the driver is collected, and let the link refer to the driver weakly."""
    link.driver = weakref.ref(driver)
    weakref.finalize(driver, link.close).atexit = False
