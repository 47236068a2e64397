"""The errors of a batcher. All derive from `BatcherError`, and every message names the cause and the remedy."""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextlib import suppress

_NOTE = "this is the item at index {} of process_many"


class BatcherError(Exception):
    """The base class of all errors that a batcher itself raises."""


class OptionError(BatcherError, ValueError):
    """An option or argument is outside its range, or two of them contradict each other."""


class BatcherStoppedError(BatcherError, RuntimeError):
    """The batcher was stopped before the call, or while the item waited or ran.

    `stop(force=True)` fails the items that wait. At the end of its timeout, `stop` fails running items too.
    """


class QueueFullError(BatcherError):
    """The queue is at `max_queue_size`. The item was not accepted and will not run.

    retry_after
        Predicted seconds until the queue has drained, from the measured drain rate: 0.001 to 60. 1.0 before any
        batch has finished.
    """

    retry_after: float

    def __init__(self, message: str = "", retry_after: float = 1.0) -> None:
        """Store `retry_after`, the seconds after which a retry is worthwhile."""
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceededError(BatcherError, TimeoutError):
    """The item has no answer within `timeout` seconds, or none is expected in time.

    An item that was still queued never runs.

    retry_after
        Seconds after which a retry is worthwhile, for a call that was refused at once: 0.001 to 60. None for an
        item that was accepted.
    """

    retry_after: float | None

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        """Store `retry_after`, the seconds after which a retry is worthwhile, or None."""
        super().__init__(message)
        self.retry_after = retry_after


FOR_NO_CALLER = (StopIteration, StopAsyncIteration, CancelledError)
"""Exceptions that a caller would misread: as the end of a loop, or as its own cancellation."""


class BatchFunctionError(BatcherError):
    """`process_batch` raised an exception that must not reach a caller unchanged.

    These exceptions are wrapped, with the original as `__cause__`:

    * exceptions outside of `Exception`: SystemExit, KeyboardInterrupt, asyncio's CancelledError, GeneratorExit;
    * StopIteration, StopAsyncIteration, and the CancelledError of concurrent.futures;
    * exceptions that cannot be copied, or not be pickled for another process (then the text has the traceback).

    It is also the error of a batch whose thread, process or event loop has ended.
    """


class BatchResultError(BatcherError, ValueError):
    """`process_batch` did not return one result for each item."""


class BatchTimeoutError(BatcherError, TimeoutError):
    """`process_batch` took longer than `batch_timeout`, and the item's batch was given up.

    While 4 such batches still hang, no other batch is started: new calls get this error at once, and so do the
    items that wait.
    """


class ItemCostError(BatcherError, ValueError):
    """The cost of one item is NaN, infinite, negative, or above `max_batch_cost`."""


class ReentrantCallError(BatcherError, RuntimeError):
    """`process_batch` called its own batcher, which waits for `process_batch` and could never have answered."""


class BatcherUnavailableError(BatcherError, ConnectionError):
    """The process with the model is gone, or cannot be reached: a call of `batchers.remote`.

    If the item had been sent, it may have run; it is not sent again by itself.

    retry_after
        Seconds until the client tries to connect again: 0 or more.
    """

    retry_after: float

    def __init__(self, message: str = "", retry_after: float = 1.0) -> None:
        """Store `retry_after`, the seconds after which a retry is worthwhile."""
        super().__init__(message)
        self.retry_after = retry_after


class RemoteError(BatcherError):
    """The function has raised an exception in another process, whose class is not one of batchers.

    type_name
        The name of its class.
    text
        Its text.
    """

    type_name: str
    text: str

    def __init__(self, type_name: str = "", text: str = "") -> None:
        """Store the name of the class, and the text."""
        super().__init__(f"{type_name}: {text}" if text else type_name)
        self.type_name = type_name
        self.text = text

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str]]:
        """Return how to make it again, in another process."""
        return type(self), (self.type_name, self.text)


class RowError(BatcherError, ValueError):
    """An item is no row of the shape and type that `batchers.arrays.rows` names; it never reached a batch."""


def note_index(error: Exception, index: int) -> None:
    """Note in an error which item of `process_many` it belongs to; some classes of users take no notes."""
    with suppress(Exception):  # of a frozen dataclass, for instance
        BaseException.add_note(error, _NOTE.format(index))


def index_of(error: BaseException) -> int | None:
    """Return the index of the item of `process_many` that failed with this error; None: the error has no note."""
    begin, end = _NOTE.split("{}")
    notes = getattr(error, "__notes__", None)
    for note in reversed(notes if isinstance(notes, list) else []):
        if isinstance(note, str) and note.startswith(begin) and note.endswith(end):
            digits = note[len(begin) : -len(end)]
            return int(digits) if digits.isdecimal() else None
    return None
