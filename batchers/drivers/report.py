"""Text reports about a batcher: one line for `repr` and logs, and the stacks of its batches."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from batchers.core.decisions import Batch
from batchers.core.machine import Core
from batchers.core.outcomes import Failed
from batchers.core.refusals import STALLED_LIMIT

from .invocation import BatchCancelledError, cancel_task, stack_of
from .pools import Pool

logger = logging.getLogger("batchers")

BETWEEN_RECORDS = 1.0
"""Seconds between two records of failed batches of one batcher."""


def is_healthy(core: Core[Any, Any], pool: Pool | None) -> bool:
    """Return False while STALLED_LIMIT batches are stalled, after a failure, and if the user's pool is broken."""
    broken = pool is not None and pool.broken is not None
    return core.stalled < STALLED_LIMIT and core.failure is None and not broken


def log(level: int, text: str, error: BaseException | None, *args: object) -> None:
    """Log a record with the traceback of an error; called without the lock, after the delivery.

    A filter or handler of the user may raise. That goes to stderr, and not through the thread that logs.
    """
    try:
        logger.log(level, text, *args, exc_info=error)
    except Exception:  # noqa: BLE001 - of a log filter or handler
        if sys.stderr is not None:
            traceback.print_exc(file=sys.stderr)


def interrupt_batch(batch: Batch[Any] | None) -> None:
    """Cancel a batch if a task runs it; log its location, unless it is interrupted because its callers have left.

    A thread cannot be cancelled. Do nothing if `batch` is None.
    """
    if batch is None:
        return
    if batch.abandoned and not batch.interrupted:
        batch.interrupted = True  # before it looks for the task, which may just begin
        cancel_task(batch)
        return
    batch.interrupted = True  # as above
    where, stack = stack_of(batch)
    cancel_task(batch)
    text = "A batch of %d was given up after its batch_timeout, %s:\n%s"
    log(logging.ERROR, text, None, len(batch.requests), where, "".join(stack))


class FailureLog:
    """Log of the failed batches of one batcher: at most one record in BETWEEN_RECORDS."""

    __slots__ = ("_last", "_left_out")

    def __init__(self) -> None:
        """Initialise with nothing logged."""
        self._last: float | None = None
        self._left_out = 0

    def add(self, name: str, batch: Batch[Any], verdict: object, now: float) -> None:
        """Log that a batch has failed, or count it for the next record; ignore a batch that has not failed.

        `now` is a time in seconds of the batcher's clock.
        """
        if not batch.failed or type(verdict) is not Failed or isinstance(verdict.cause, BatchCancelledError):
            return
        batch.failed = False  # logged, also if an exception makes the driver report the batch once more
        count, cause = len(batch.requests), verdict.cause
        if self._last is not None and now - self._last < BETWEEN_RECORDS:
            self._left_out += 1
            return
        left_out, self._left_out, self._last = self._left_out, 0, now
        more = f" ({left_out} more failed since the last record)" if left_out else ""
        log(logging.ERROR, "A batch of %d of %s failed%s", cause, count, name, more)


def state_of(core: Core[Any, Any]) -> str:
    """Return the state of a batcher before its end: "new" (no item was accepted yet), "running" or "stopping"."""
    if core.closed:
        return "stopping"
    return "running" if core.accepted else "new"


def line(kind: str, name: str, state: str, core: Core[Any, Any]) -> str:
    """Return the line that describes a batcher: class, name, state, and the numbers of items and batches."""
    title = kind if name == kind else f"{kind} {name!r}"
    return f"<{title} {state}: {core.queued} queued, {core.running} running, {core.in_flight} batches in flight>"


def batches(in_flight: Sequence[Batch[Any]], stalled: Sequence[Batch[Any]], now: float) -> list[str]:
    """Return the lines that describe batches: size, state, seconds since the start, location and stack.

    `now` is the current time of the batcher's clock.
    """
    lines: list[str] = []
    for group, state in ((in_flight, "runs"), (stalled, "was given up and hangs")):
        for batch in group:
            where, stack = stack_of(batch)
            count = len(batch.requests)
            items = f"{count} item{'s' * (count != 1)}"
            lines += [f"a batch of {items} {state}, for {now - batch.started:.3f} s, {where}", *stack]
    return [each.rstrip("\n") for each in lines]
