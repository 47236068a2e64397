"""`serve`: a batcher on a unix socket, for other processes of this machine and this user."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from batchers.batcher import Batcher
from batchers.drivers.loops import LoopThread
from batchers.errors import BatcherError, OptionError
from batchers.options import Options

from . import addresses
from .clients import ClientConnection
from .codecs import Codec, codec_of, from_json, to_json
from .policies import changes_of

logger = logging.getLogger("batchers")

Answers = Mapping[str, Callable[[bytes], Awaitable[bytes]]]
"""Answers to questions of clients, by their names."""


class BatcherServer:
    """A batcher that other processes can reach; `serve` makes it.

    `async with server` runs it on the loop of the caller, and `with server` on a loop in a thread of its own. It
    starts at the begin of the block, and refuses new connections and ends those it has at its end. The batcher is
    its user's to stop, before or after it: before, so that clients get their answers.
    """

    def __init__(
        self,
        batcher: Batcher[Any, Any],
        path: str | os.PathLike[str],
        *,
        codec: str | Codec,
        max_frame_size: int,
        arena_size: int,
        max_connections: int,
        about: Mapping[str, Any] | None,
        answers: Answers | None,
    ) -> None:
        """Initialise the server; `serve` documents the options."""
        self.path = addresses.checked_path(path)
        self.codec = codec_of(codec)
        self.batcher = batcher
        # As for HTTP (`batchers.serving.cycle`): without a coroutine and a task for each call.
        self.driver: Any = getattr(batcher, "_Batcher__batchers_driver")  # noqa: B009
        self.max_frame_size = max_frame_size
        self.arena_size = arena_size
        self.about = dict(about or {})
        self.answers = {**self._reports(), **(answers or {})}
        self._max_connections = max_connections
        self._connections: set[ClientConnection] = set()
        self._listener: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: LoopThread | None = None

    @property
    def connections(self) -> int:
        """The number of clients that are connected."""
        return len(self._connections)

    # Start and stop

    async def start(self) -> None:
        """Listen at the path. Raises OptionError and OSError of `addresses.listen`."""
        if self._listener is not None:
            msg = f"the server at {self.path} has been started already"
            raise BatcherError(msg)
        self._listener = addresses.listen(self.path)
        self._identity = addresses.identity(self.path)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener.fileno(), self._accept)

    async def stop(self) -> None:
        """Listen no more, and end all connections."""
        listener, self._listener = self._listener, None
        if listener is None or self._loop is None:
            return
        self._loop.remove_reader(listener.fileno())
        listener.close()
        addresses.remove(self.path, self._identity)
        for connection in list(self._connections):
            connection.close(None)

    async def __aenter__(self) -> Self:
        """Start on the running loop."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop."""
        await self.stop()

    def __enter__(self) -> Self:
        """Start on a loop in an own thread."""
        self._thread = LoopThread("batchers-server")
        try:
            self._thread.run(self.start()).result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop, and end the thread."""
        self.close()

    def close(self) -> None:
        """End what `with` has started."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.run(self.stop()).result()
            thread.stop_soon()
            thread.thread.ended.result()
            thread.thread.join()

    # Connections

    def _accept(self) -> None:
        if self._listener is None or self._loop is None:
            return
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors, for instance: the next event tries again
            logger.warning("A connection to %s was not accepted: %s", self.path, error)
            return
        try:
            addresses.check_peer(accepted)
            self._check_room()
            connection = ClientConnection(self, accepted, self._loop)
        except (BatcherError, OSError) as error:
            logger.warning("A connection to %s was refused: %s", self.path, error)
            accepted.close()
            return
        self._connections.add(connection)
        connection.greet()

    def _check_room(self) -> None:
        if len(self._connections) >= self._max_connections:
            msg = f"there are {self._max_connections} connections already: raise max_connections"
            raise BatcherError(msg)

    def forget(self, connection: ClientConnection) -> None:
        """Remove a connection that has ended."""
        self._connections.discard(connection)

    def greeting(self) -> dict[str, Any]:
        """Return what a client has to know."""
        options: Options = self.driver.options
        return {
            "codec": self.codec.name,
            "name": self.batcher.name,
            "max_batch_cost": options.max_batch_cost,
            "cost": options.cost is not None,
            "length": options.length is not None,
            "healthy": self.batcher.healthy,
            "about": self.about,
        }

    # Reports

    def _reports(self) -> dict[str, Callable[[bytes], Awaitable[bytes]]]:
        async def stats(_: bytes) -> bytes:
            return to_json(dataclasses.asdict(self.batcher.stats()))

        async def decisions(_: bytes) -> bytes:
            return to_json(self.batcher.decisions())

        async def dump(_: bytes) -> bytes:
            return self.batcher.dump().encode()

        async def reconfigure(said: bytes) -> bytes:
            self.batcher.reconfigure(**changes_of(from_json(memoryview(said))))
            return b""

        async def ping(_: bytes) -> bytes:
            return b""

        return {"ping": ping, "stats": stats, "decisions": decisions, "dump": dump, "reconfigure": reconfigure}


def serve(
    batcher: Batcher[Any, Any],
    path: str | os.PathLike[str],
    *,
    codec: str | Codec = "json",
    max_frame_size: int = 64_000_000,
    arena_size: int = 64_000_000,
    max_connections: int = 256,
    about: Mapping[str, Any] | None = None,
    answers: Answers | None = None,
) -> BatcherServer:
    """Return a server that makes a batcher reachable on a unix socket; `async with` or `with` starts it.

    path
        Of the socket: at most 107 bytes. Its folder must be of mode 0700; one that is missing is made. A socket
        that a server has left behind is replaced; one at which a server listens is an error.
    codec
        How items and results travel: "json", "msgpack" (needs msgspec), "arrays" (JSON with arrays of numpy and
        bytes), "bytes" (nothing but bytes), or "pickle", which clients have to name as well, because it lets them
        run code here. Default "json".
    max_frame_size
        Bytes of one frame, which has all calls or outcomes of a turn of the loop: 100 000 or more. Default 64 MB.
    arena_size
        Bytes of the shared memory for each direction of each connection, for items and results of 100 KB and more;
        used only as far as they need it. 0: none, all goes through the socket. Default 64 MB. Linux only.
    max_connections
        Clients at most; more are refused. Default 256.
    about
        A JSON object for the clients (`RemoteBatcher.about`). Default None: nothing.
    answers
        Coroutine functions by name, for `RemoteBatcher.ask`: bytes to bytes. Default None: none.

    Raises OptionError for values out of range. Only processes of the same user can connect (on Linux; elsewhere
    the folder keeps others out).
    """
    given: tuple[tuple[str, Any, int], ...] = (
        ("max_frame_size", max_frame_size, 100_000),
        ("arena_size", arena_size, 0),
        ("max_connections", max_connections, 1),
    )
    for name, value, least in given:
        if not isinstance(value, int) or value < least:
            msg = f"{name} must be a whole number, {least} or more, not {value!r}"
            raise OptionError(msg)
    return BatcherServer(
        batcher,
        path,
        codec=codec,
        max_frame_size=max_frame_size,
        arena_size=arena_size,
        max_connections=max_connections,
        about=about,
        answers=answers,
    )
