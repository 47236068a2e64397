"""The least that an HTTP server in Python does with httptools and uvloop: it answers the same to every request.

No limits, no times, no errors, no pipelining, no drain, and no model. It is the floor of a request.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import uvloop

BODY = b"12.5"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nserver: bare\r\ndate: Sat, 28 Nov 2026 00:00:00 GMT\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n"
    b"referrer-policy: no-referrer\r\ncontent-security-policy: frame-ancestors 'none'\r\n\r\n%s"
    % (len(BODY), BODY)
)


class BareProtocol(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - of uvloop
        """Begin to parse."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self.headers = []
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header."""
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """Store a part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        self.transport.write(ANSWER)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(BareProtocol, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
