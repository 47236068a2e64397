"""What the OpenAPI document says, asked and answered: schemathesis makes good requests and bad ones from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from server.app import app
from tests.support.server import Server, serve

schema = schemathesis.openapi.from_dict(app.api.openapi())


@pytest.fixture(scope="module", params=["threading", "asyncio"])
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give one server for all requests, with each backend."""
    with serve(BATCHER_BACKEND=request.param, MODEL_CALL="emulated") as server:
        yield server


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_route(running: Server, case: Any) -> None:
    """Answers have a status, a type and a shape that the document names; bad requests are refused; no 500."""
    # Numbers that are finite may still be too large for a model: no schema can say which.
    answer = case.call(base_url=running.url)
    case.validate_response(answer, excluded_checks=[positive_data_acceptance, not_a_server_error])
    # A request may say that it waits for a moment only.
    assert answer.status_code < 500 or (answer.status_code == 504 and "X-Request-Timeout" in (case.headers or {}))
