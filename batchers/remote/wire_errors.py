"""Errors on their way to another process: those of batchers keep their class, others become RemoteError."""

from __future__ import annotations

from typing import Any

from batchers import errors
from batchers.core.exceptions import text_of
from batchers.errors import BatcherError, RemoteError

from .codecs import NotDecodedError, NotEncodedError

_KNOWN: dict[str, type[BatcherError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, BatcherError) and kind is not RemoteError
} | {kind.__name__: kind for kind in (NotEncodedError, NotDecodedError)}

LONGEST_TEXT = 10_000
"""Characters of a text that travel."""


def to_wire(error: BaseException) -> list[Any]:
    """Return what travels of an error: class, text, seconds until a retry, and whether the class is known."""
    if isinstance(error, RemoteError):
        return [error.type_name, error.text, None, False]
    name = type(error).__name__
    known = next((each.__name__ for each in type(error).__mro__ if _KNOWN.get(each.__name__) is each), None)
    text = text_of(error)[:LONGEST_TEXT]
    retry_after = getattr(error, "retry_after", None)
    return [known or name, text, retry_after if isinstance(retry_after, float) else None, known is not None]


def from_wire(said: list[Any]) -> BatcherError:
    """Return the error for a caller in this process."""
    name, text, retry_after, is_known = said
    kind = _KNOWN.get(str(name)) if is_known else None
    if kind is None:
        return RemoteError(str(name), str(text))
    if kind in {errors.QueueFullError, errors.DeadlineExceededError, errors.BatcherUnavailableError}:
        return kind(str(text), *(() if retry_after is None else (float(retry_after),)))
    return kind(str(text))
