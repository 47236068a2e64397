"""Steps that several tests of the core take, and a group that breaks."""

from __future__ import annotations

from typing import TypeVar

from batchers.core.decisions import Batch, Run
from batchers.core.machine import Core

T = TypeVar("T")
S = TypeVar("S")


def running(core: Core[T, S], now: float = 0.0) -> Batch[T]:
    """Return the batch that goes now; the driver has it."""
    decision = core.decide(now)
    assert isinstance(decision, Run)
    decision.batch.begun = True
    return decision.batch


class Fickle:
    """A group that cannot be hashed any more once it is broken."""

    def __init__(self) -> None:
        self.broken = False

    def __hash__(self) -> int:
        if self.broken:
            msg = "no hash any more"
            raise ValueError(msg)
        return 1
