"""Handling of batchers after a fork of the process and at the exit of the interpreter."""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import os
import weakref
from typing import Protocol

EXIT_SECONDS = 5.0
"""Seconds that all batchers together have at the exit of the interpreter to serve their accepted items."""

logger = logging.getLogger("batchers")


class Watched(Protocol):
    """The methods that a driver provides for these two events."""

    def after_fork(self) -> None:
        """Reset the driver, in the child of a fork."""

    def at_exit(self) -> concurrent.futures.Future[None] | None:
        """Start to serve the accepted items before the interpreter exits.

        Return a future that is resolved when all are served, or None if there is nothing to wait for.
        """


_alive: weakref.WeakValueDictionary[int, Watched] = weakref.WeakValueDictionary()  # key: id of the driver


def watch(driver: Watched) -> None:
    """Register a driver for the calls after a fork and at the exit.

    The registry keeps a weak reference only.
    """
    _alive[id(driver)] = driver


def _after_fork_in_child() -> None:
    for driver in list(_alive.values()):
        driver.after_fork()


def _at_exit() -> None:
    ends = []
    for ref in _alive.valuerefs():  # a list, so other threads may create or drop drivers meanwhile
        driver = ref()
        if driver is None:
            continue
        try:
            ends.append(driver.at_exit())
        except Exception:
            logger.exception("A batcher cannot serve what it accepted")
    concurrent.futures.wait([end for end in ends if end is not None], EXIT_SECONDS)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
