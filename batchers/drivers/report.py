"""Text reports about a batcher: one line for `repr` and logs, and the stacks of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchers.core.decisions import Batch
from batchers.core.machine import Core

from .invocation import stack_of


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
