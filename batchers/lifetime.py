"""What becomes of batchers when the process forks or the interpreter exits."""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import os
import weakref
from typing import Protocol

EXIT_SECONDS = 5.0
"""Seconds that all batchers together have at the exit to serve what they accepted."""

logger = logging.getLogger("batchers")


class Mortal(Protocol):
    """What a batcher does in the end."""

    def _after_fork(self) -> None: ...
    def _at_exit(self) -> concurrent.futures.Future[None] | None: ...


# By identity: a subclass may define what makes its objects equal.
_alive: weakref.WeakValueDictionary[int, Mortal] = weakref.WeakValueDictionary()


def watch(mortal: Mortal) -> None:
    """Tell a batcher of forks and of the exit, as long as it lives."""
    _alive[id(mortal)] = mortal


def _after_fork_in_child() -> None:
    for mortal in list(_alive.values()):
        mortal._after_fork()  # noqa: SLF001 - the protocol of this module


def _at_exit() -> None:
    ends = []
    for ref in _alive.valuerefs():  # a list, whatever other threads make or drop meanwhile
        mortal = ref()
        if mortal is None:
            continue
        try:
            ends.append(mortal._at_exit())  # noqa: SLF001 - the protocol of this module
        except Exception:
            logger.exception("A batcher cannot serve what it accepted")
    concurrent.futures.wait([end for end in ends if end is not None], EXIT_SECONDS)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
