"""Bodies that nobody in his right mind sends: each is answered with 200, 413 or 422, never with an exception."""

from __future__ import annotations

import asyncio
import json
import math
import os
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.model import NoPredictionError
from tests.serving.test_endpoints import JSON, LIMIT, ask, endpoint, total

EXAMPLES = int(os.environ.get("HOSTILE_BODIES", "300"))
"""HOSTILE_BODIES=100000 for a long run."""

numbers: st.SearchStrategy[Any] = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from(["NaN", "1e400", "-0", "1" * 400, "0x1", True, None, "1", [], {}, [1.0], "\ud800"]),
)
rows = st.lists(numbers, max_size=14)


def dumped(value: Any) -> bytes:
    """Return JSON, with what JSON does not know."""
    return json.dumps(value).encode()


mutated = st.builds(
    lambda body, place, bytes_: body[: place % (len(body) + 1)] + bytes_ + body[place % (len(body) + 1) :],
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=10, max_size=10).map(dumped),
    st.integers(0, 300),
    st.binary(min_size=1, max_size=3),
)
nested = st.builds(
    lambda depth, end: b"[" * depth + end, st.integers(1, LIMIT), st.sampled_from([b"", b"1", b"]"])
)
bodies = st.one_of(st.binary(max_size=2 * LIMIT), rows.map(dumped), mutated, nested)
headers = st.lists(
    st.tuples(
        st.sampled_from([b"content-type", b"content-length", b"x-request-timeout", b"x"]), st.binary(max_size=12)
    ),
    max_size=3,
)


async def predict(row: list[float], *, timeout: float | None) -> float:
    """Answer, or refuse, as the models do."""
    found = await total(row, timeout=timeout)
    if not math.isfinite(found):
        raise NoPredictionError
    return found


@settings(max_examples=EXAMPLES, deadline=None)
@given(bodies, headers)
@example(dumped([1e308] * 10), [JSON])
def test_any_body(body: bytes, more: list[tuple[bytes, bytes]]) -> None:
    """In one part or two; the answer is JSON that says what is wrong, without what was sent."""
    parts = (body[: len(body) // 2], body[len(body) // 2 :])
    status, _, content = asyncio.run(ask(endpoint(predict, LIMIT, 1.0), *parts, headers=tuple(more)))
    assert status in {200, 413, 422}
    found = json.loads(content)
    if status != 200:
        assert set(found) == {"detail"}
        assert all({"type", "loc", "msg"} == set(problem) for problem in found["detail"])
