"""Reports of a served batcher, for callers in any thread: each on a connection of its own, which blocks."""

from __future__ import annotations

import dataclasses
import json
import socket
from typing import Any

from batchers.core.decisions import Dispatch
from batchers.errors import BatcherUnavailableError
from batchers.stats import BatcherStats, HistogramSnapshot

from . import addresses
from .codecs import from_json, to_json
from .frames import ANSWER, HELLO, QUESTION, Buffer, FrameError
from .stream import Stream
from .wire_errors import from_wire

SECONDS = 1.0
"""Seconds that the server has for an answer."""


def stats(path: str) -> BatcherStats:
    """Return the counters of the batcher that is served at a path."""
    found: dict[str, Any] = json.loads(ask(path, "stats"))
    for field in dataclasses.fields(BatcherStats):
        value = found[field.name]
        if isinstance(value, dict) and "bounds" in value:
            found[field.name] = HistogramSnapshot(tuple(value["bounds"]), tuple(value["counts"]), value["total"])
    return BatcherStats(**found)


def dispatches(path: str) -> list[Dispatch]:
    """Return the most recent starts of batches of the batcher that is served at a path."""
    return [Dispatch(*each) for each in json.loads(ask(path, "decisions"))]


def ask(path: str, name: str, payload: bytes = b"") -> bytes:
    """Ask a question, and block until the answer comes.

    Raises BatcherUnavailableError after SECONDS, and the errors of the answer.
    """
    buffers: list[Buffer] = [to_json([1, name]), payload]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            connection.connect(path)
            addresses.check_peer(connection)
            return _ask(connection, buffers)
    except (OSError, EOFError, FrameError) as error:
        msg = f"no answer of the batcher at {path} ({str(error) or 'it has ended'}): see that its process runs"
        raise BatcherUnavailableError(msg) from error


def _ask(connection: socket.socket, buffers: list[Buffer]) -> bytes:
    stream = Stream(connection, 64_000_000, 0)
    connection.settimeout(SECONDS)
    try:
        stream.greet({})
        stream.flush()
        while True:
            for frame in stream.receive():
                if frame.kind == HELLO:
                    stream.meet(frame)
                    stream.send(QUESTION, buffers)
                    stream.flush()
                elif frame.kind == ANSWER:
                    _, error = from_json(frame.parts[0].data)
                    if error is not None:
                        raise from_wire(error)
                    return bytes(frame.parts[1].data)
    finally:
        stream.close()
