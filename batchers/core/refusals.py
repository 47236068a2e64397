"""Errors for items that admission refuses.

The decision to refuse them is made in `machine`. This module is pure.
"""

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
"""Number of batches that may hang after they were given up.

At this number, no other batch is started.
"""


def refusal(
    count: int, *, failure: str | None, closed: bool, stalled: int, queued: int, limit: int, seconds: float
) -> BatcherError:
    """Return the error for `count` items that are not accepted.

    The first reason that applies determines the type:

    - BatcherError: the batcher has failed, with the cause `failure`.
    - BatcherStoppedError: the batcher is closed.
    - BatchTimeoutError: `stalled` batches hang, STALLED_LIMIT or more.
    - OptionError: `count` items can never fit into a queue of `limit` items.
    - QueueFullError: the queue is full. `seconds` is its `retry_after`: the queue has probably drained by then.
    """
    if failure is not None:
        return BatcherError(messages.failed(failure))
    if closed:
        return BatcherStoppedError("the batcher is stopped; make a new one")
    if stalled >= STALLED_LIMIT:
        return BatchTimeoutError(messages.stalled(stalled))
    if count > limit:
        return OptionError(f"{count} items can never fit max_queue_size={limit}: pass fewer at a time")
    msg = (
        f"{queued} items wait and max_queue_size is {limit}: try again in about {seconds:.3f} s, "
        "raise max_queue_size, or add capacity"
    )
    return QueueFullError(msg, retry_after=seconds)


def late_refusal(late: float, *, queued: int, running: int) -> DeadlineExceededError:
    """Return the error for items whose answers would come `late` seconds after their deadline.

    `retry_after` of the error is `late`, limited to the range from 0.001 to 60 seconds.
    """
    seconds = min(max(late, SHORTEST), LONGEST)
    msg = (
        f"{queued} items wait and {running} run: the answer would be {late:.3f} s late; "
        f"try again in about {seconds:.3f} s, give it a longer timeout, or add capacity"
    )
    return DeadlineExceededError(msg, retry_after=seconds)
