"""Error messages for items without a result.

Each message names the cause and the remedy. This module is pure.
"""

from __future__ import annotations

from typing import Any

from .decisions import Batch
from .group_queue import QUEUED, Request


def expired(request: Request[Any], now: float) -> str:
    """Return the message for an item whose deadline has passed."""
    where = "in the queue" if request.state == QUEUED else "in a running batch"
    return (
        f"no answer after {now - request.arrived:.3f} s: the item was still {where}; "
        "give it a longer timeout, or add capacity"
    )


def too_late(request: Request[Any], now: float, end: float) -> str:
    """Return the message for a waiting item whose batch, if dispatched now, would end too late, at `end`."""
    return (
        f"no answer in time: after {now - request.arrived:.3f} s in the queue the next batch would end "
        f"{end - request.deadline:.3f} s too late; give it a longer timeout, or add capacity"
    )


def batch_timed_out(batch: Batch[Any], now: float, limit: float) -> str:
    """Return the message for the items of a batch that was given up after `limit` seconds (`batch_timeout`)."""
    return (
        f"process_batch has not returned after {now - batch.started:.3f} s (batch_timeout is {limit}): "
        "give it more time, or see where it hangs with batcher.dump()"
    )


def stalled(count: int) -> str:
    """Return the message for all items while too many batches (`count`) hang."""
    return (
        f"{count} calls of process_batch hang, and no other is begun until one returns: "
        "see where with batcher.dump(), and restart the process"
    )


def stopped(request: Request[Any]) -> str:
    """Return the message for an item that was queued or running at a stop by force or after a timeout."""
    where = "waited" if request.state == QUEUED else "ran"
    return f"the batcher was stopped while the item {where}; stop without force or timeout serves all"


def failed(cause: str) -> str:
    """Return the message for all items after an internal error of the batcher."""
    return f"the batcher has failed ({cause}): make a new one"
