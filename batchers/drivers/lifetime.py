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


class Watched(Protocol):
    """What a driver does in these cases."""

    def after_fork(self) -> None:
        """Start afresh, in the child."""

    def at_exit(self) -> concurrent.futures.Future[None] | None:
        """Begin to serve what was accepted; return the end of it, if there is anything."""


_alive: weakref.WeakValueDictionary[int, Watched] = weakref.WeakValueDictionary()  # by identity


def watch(driver: Watched) -> None:
    """Call a driver after a fork and at the exit, as long as it lives."""
    _alive[id(driver)] = driver


def _after_fork_in_child() -> None:
    for driver in list(_alive.values()):
        driver.after_fork()


def _at_exit() -> None:
    ends = []
    for ref in _alive.valuerefs():  # a list, whatever other threads make or drop meanwhile
        driver = ref()
        if driver is None:
            continue
        try:
            ends.append(driver.at_exit())
        except Exception:
            logger.exception("A batcher cannot serve what it accepted")
    concurrent.futures.wait([end for end in ends if end is not None], EXIT_SECONDS)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
