"""When a client is told to come again."""

from __future__ import annotations

import pytest

from batchers import BatcherStoppedError, DeadlineExceededError, QueueFullError
from batchers.serving.answers import answer_to

TIMES = 200


@pytest.mark.parametrize("kind", [QueueFullError, DeadlineExceededError])
@pytest.mark.parametrize("seconds", [1.0, 10.0, 60.0])
def test_retry_after(kind: type[QueueFullError | DeadlineExceededError], seconds: float) -> None:
    """Whole seconds, not less than the batcher has measured, up to half more; not the same for all."""
    answers = [answer_to(kind(retry_after=seconds)).response() for _ in range(TIMES)]
    assert {answer.status_code for answer in answers} == {503}
    found = {int(answer.headers["retry-after"]) for answer in answers}
    assert min(found) >= seconds
    assert max(found) <= 1.5 * seconds + 2
    assert len(found) > 1


def test_the_shortest() -> None:
    """HTTP knows whole seconds only: a part of one is one, or two where the spread carries it over."""
    for seconds, whole in ((0.0, {"1"}), (0.001, {"1", "2"})):
        answers = [answer_to(QueueFullError(retry_after=seconds)).response() for _ in range(TIMES)]
        assert {answer.headers["retry-after"] for answer in answers} <= whole


def test_who_is_told_to_come_at_once() -> None:
    """Another server does what this one stops doing; a deadline that has passed is the client's."""
    assert answer_to(BatcherStoppedError()).response().headers["retry-after"] == "1"
    assert "retry-after" not in answer_to(DeadlineExceededError()).response().headers


def test_no_memory() -> None:
    """It may be there again soon, but the rest of this request is not read."""
    answer = answer_to(MemoryError()).response()
    assert answer.status_code == 503
    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
