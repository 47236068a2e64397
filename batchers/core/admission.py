"""Pure: why items are refused. The machine decides that they are; this says what the caller gets."""

from __future__ import annotations

from batchers.errors import (
    BatcherError,
    BatcherStoppedError,
    BatchTimeoutError,
    DeadlineExceededError,
    OptionError,
    QueueFullError,
)

from . import messages
from .drain_rate import LONGEST, SHORTEST

STALLED_LIMIT = 4
"""Batches that may hang after they were given up. With so many, no other batch is begun."""


def refusal(count: int, *, closed: bool, stalled: int, queued: int, limit: int, seconds: float) -> BatcherError:
    """Return the error for `count` items that are not accepted.

    `seconds`: the time after which the queue has probably drained.
    """
    if closed:
        return BatcherStoppedError("the batcher is stopped; make a new one")
    if stalled >= STALLED_LIMIT:
        return BatchTimeoutError(messages.stalled(stalled))
    if count > limit:
        return OptionError(f"{count} items can never fit max_queue_size={limit}: hand in fewer at a time")
    msg = (
        f"{queued} items wait and max_queue_size is {limit}: try again in about {seconds:.3f} s, "
        "raise max_queue_size, or add capacity"
    )
    return QueueFullError(msg, retry_after=seconds)


def late_refusal(late: float, *, queued: int, running: int) -> DeadlineExceededError:
    """Return the error for items whose answers would come `late` seconds after their deadline."""
    seconds = min(max(late, SHORTEST), LONGEST)
    msg = (
        f"{queued} items wait and {running} run: the answer would be {late:.3f} s late; "
        f"try again in about {seconds:.3f} s, give it a longer timeout, or add capacity"
    )
    return DeadlineExceededError(msg, retry_after=seconds)
