"""What a batcher raises. Every error derives from `BatcherError`, and every message names the cure."""

from __future__ import annotations

from concurrent.futures import CancelledError


class BatcherError(Exception):
    """Base of all errors that a batcher raises on its own account."""


class OptionError(BatcherError, ValueError):
    """An option or argument is outside its range, or two of them contradict each other."""


class BatcherStoppedError(BatcherError, RuntimeError):
    """The batcher was stopped: before the call, or (with `force` or a timeout) while the item waited."""


class QueueFullError(BatcherError):
    """The queue is at `max_queue_size`; the item was not accepted and will not run."""

    retry_after: float
    """Seconds until the queue has probably drained, from the measured drain rate; 0.001 to 60."""

    def __init__(self, message: str = "", retry_after: float = 1.0) -> None:
        """Keep the time after which a new attempt makes sense."""
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceededError(BatcherError, TimeoutError):
    """No answer within `timeout` seconds. An item that was still queued never runs."""

    retry_after: float | None
    """Seconds after which a new attempt makes sense, when the call was refused at once; None when it waited."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        """Keep the time after which a new attempt makes sense."""
        super().__init__(message)
        self.retry_after = retry_after


FOR_NO_CALLER = (StopIteration, StopAsyncIteration, CancelledError)
"""Exceptions that mean something else where a caller awaits: the end of a loop, or its own cancellation."""


class BatchFunctionError(BatcherError):
    """`process_batch` ended with something that must not reach a caller as it is.

    That is what is no `Exception` (SystemExit, KeyboardInterrupt, asyncio's CancelledError,
    GeneratorExit), StopIteration, StopAsyncIteration, the CancelledError of concurrent.futures, or an
    exception that cannot be copied. The original is the `__cause__`.
    """


class BatchResultError(BatcherError, ValueError):
    """`process_batch` did not return one result for each item."""


class BatchTimeoutError(BatcherError, TimeoutError):
    """`process_batch` took longer than `batch_timeout`: the item's batch was given up.

    Also raised at once, and to those who wait, while so many such batches still hang that no other is begun.
    """


class ItemCostError(BatcherError, ValueError):
    """The cost of one item is no number, is negative, or is above `max_batch_cost`."""


class ReentrantCallError(BatcherError, RuntimeError):
    """`process_batch` waited for its own batcher, which could never have answered."""
