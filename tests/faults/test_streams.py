"""How the answers of two protocols to the same bytes are compared."""

from __future__ import annotations

import random

from benchmarks.faults.streams import DIFFERENT, EARLIER, HEAD_LIMIT, LONG_HEAD, SAME, difference_of, stream, told

OK = b"HTTP/1.1 200 OK\r\ndate: now\r\nb: 2\r\na: 1\r\ncontent-length: 7\r\n\r\n12.34567"
BAD = b"HTTP/1.1 400 Bad Request\r\n\r\nno"


def test_answers() -> None:
    """Dates, lengths and the last digits are left out; the order of headers does not count."""
    other = (
        OK.replace(b"date: now", b"date: then").replace(b"b: 2\r\na: 1", b"a: 1\r\nb: 2").replace(b"567", b"599")
    )
    first = told(OK + BAD, closed=True)
    assert first == told(other + BAD, closed=True)
    assert first[0] == (b"200 OK", (b"a: 1", b"b: 2"), b"12.345")
    assert first != told(OK + BAD, closed=False)


def test_differences() -> None:
    """One try with the same answers is enough; named differences are those of docs/serving.md."""
    both, bad = told(OK + BAD, closed=True), told(BAD, closed=True)
    assert difference_of({bad, both}, {both}, 10) == SAME
    assert difference_of({both}, {bad}, 10) == EARLIER
    assert difference_of({bad}, {both}, 10) == DIFFERENT
    assert difference_of({bad}, {told(OK, closed=False)}, HEAD_LIMIT + 1) == LONG_HEAD
    assert difference_of({told(OK, closed=False)}, {bad}, 10) == DIFFERENT


def test_streams() -> None:
    """They are the same for the same seed, and no part is empty."""
    for seed in range(300):
        parts = stream(random.Random(seed))
        assert parts == stream(random.Random(seed))
        assert all(parts)
