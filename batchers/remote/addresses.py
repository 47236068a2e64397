"""Unix sockets: their paths, who may use them, and what is left of a server that has ended."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchers.errors import BatcherError, OptionError

LONGEST_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of the path of a unix socket at most; the system has no place for more."""

BACKLOG = 128

_PRIVATE = 0o700
_CREDENTIALS = struct.Struct("iII")


def checked_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a socket. Raises OptionError if it is too long."""
    found = os.path.abspath(os.fspath(path))  # noqa: PTH100 - a Path would resolve nothing more
    size = len(os.fsencode(found))
    if size > LONGEST_PATH:
        msg = f"the path of the socket has {size} bytes, and {LONGEST_PATH} are possible: {found}"
        raise OptionError(msg)
    return found


def listen(path: str) -> socket.socket:
    """Return a listening socket at a path, in the place of one that a server has left behind.

    A folder that is missing is made, for this user only. Raises OptionError for a folder that others can enter,
    for a path with something else than a socket, and if a server listens there; OSError for what the system
    refuses.
    """
    folder = Path(path).parent
    with suppress(FileExistsError):
        folder.mkdir(mode=_PRIVATE, parents=True)
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & 0o077:
        msg = f"other users can enter the folder of the socket: chmod 700 {folder}, or take another folder"
        raise OptionError(msg)
    with _locked(folder):
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    return listener


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which leaves no file: two servers that start together see each other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            msg = f"{path} is there already, and is no socket: remove it, or take another path"
            raise OptionError(msg)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except OSError:  # its queue of connections is full, for instance
            pass
    msg = f"a server listens at {path} already: stop it, or take another path"
    raise OptionError(msg)


def identity(path: str) -> tuple[int, int] | None:
    """Return which file a path is now; None: there is none."""
    try:
        about = os.lstat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def remove(path: str, known: tuple[int, int] | None) -> None:
    """Remove a socket if it is the known one, and not that of a server that has come later."""
    if known is not None and identity(path) == known:
        with suppress(FileNotFoundError):
            Path(path).unlink()


def check_peer(connection: socket.socket) -> None:
    """Raise BatcherError if another user has the other end; where the system does not say who, do nothing."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    if user != os.getuid():
        msg = f"the other end belongs to the user {user}, and this one to {os.getuid()}"
        raise BatcherError(msg)
