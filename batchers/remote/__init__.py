"""One model process for many front ends: a batcher on a unix socket, and its client; standard library only.

`serve` makes a batcher reachable for other processes of this machine. `connect` is a batcher in each of them: it
has the calls of `Batcher`, keeps the calls without an answer and their deadlines, and decides nothing. The
decisions are those of the one batcher that is served. Modules here import the library.
"""

from .client import RemoteBatcher, connect
from .server import BatcherServer, serve

__all__ = ["BatcherServer", "RemoteBatcher", "connect", "serve"]
