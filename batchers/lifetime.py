"""What becomes of batchers when the process forks or the interpreter exits."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol

EXIT_SECONDS = 5.0
"""Seconds that batchers have at the exit to serve what they accepted."""


class Mortal(Protocol):
    """What a batcher does in the end."""

    def _after_fork(self) -> None: ...
    def _at_exit(self) -> None: ...


_alive: weakref.WeakSet[Mortal] = weakref.WeakSet()


def watch(mortal: Mortal) -> None:
    """Tell a batcher of forks and of the exit, as long as it lives."""
    _alive.add(mortal)


def _after_fork_in_child() -> None:
    for mortal in list(_alive):
        mortal._after_fork()  # noqa: SLF001 - the protocol of this module


def _at_exit() -> None:
    for mortal in list(_alive):
        mortal._at_exit()  # noqa: SLF001 - the protocol of this module


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
