"""Users of the original benchmark, and its ramps. By hand: `locust -f benchmarks/load/locustfile.py --help`.

Each user posts ten random numbers, waits 2 to 10 seconds, and wants status 200 and a JSON float within a second.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, LoadTestShape, between, events, task
from locust.env import Environment

from benchmarks.load.ramps import RAMPS

HEADERS = {"Content-Type": "application/json"}
"""Without it this client says text/plain, which the server refuses."""

SECONDS = 1.0
"""Time for a connection, and for an answer."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust types it not
def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of these users."""
    parser.add_argument("--path", default="/optimized_predict", help="what is posted to")
    parser.add_argument("--ramp", default="v0.2.0", choices=sorted(RAMPS), help="whose report's ramp")
    parser.add_argument("--most-users", type=int, default=3000, help="users at the top")
    parser.add_argument("--time-scale", type=float, default=1.0, help="1: the ramp's own length; 0.1: a tenth")
    parser.add_argument("--record", default="", help="a JSON file for what was seen in each second")


class Caller(FastHttpUser):
    """One user."""

    wait_time = between(2, 10)
    connection_timeout = SECONDS
    network_timeout = SECONDS

    @task
    def predict(self) -> None:
        """Ask for a prediction, and look at the answer."""
        body = str([random.random() for _ in range(10)])  # noqa: S311 - not for secrets
        path = self.environment.parsed_options.path
        with self.client.post(path, data=body, headers=HEADERS, catch_response=True) as response:
            error = getattr(response, "error", None)
            if error is not None:  # no answer, or not all of it
                response.failure(_kind_of(error))
            elif response.status_code != 200:  # noqa: PLR2004 - the number of HTTP
                response.failure(f"status {response.status_code}")
            elif not isinstance(response.json(), float):
                response.failure("no float")


class Ramp(LoadTestShape):
    """Users come evenly until all are there, and stay."""

    use_common_options = False

    def tick(self) -> tuple[int, float] | None:
        """Return the users wanted now and how many may come in a second; None at the end."""
        options: Any = self.runner and self.runner.environment.parsed_options
        up, top = (seconds * options.time_scale for seconds in RAMPS[options.ramp])
        now: float = self.get_run_time()  # type: ignore[no-untyped-call]
        if now > up + top:
            return None
        share = min(now / up, 1.0)
        return max(round(options.most_users * share), 1), max(options.most_users / up, 1.0)


class Record:
    """What users saw, second by second. Percentiles of the whole come from all latencies, not from averages."""

    def __init__(self, environment: Environment) -> None:
        """Begin now."""
        self._environment = environment
        self._start = time.monotonic()
        self._latencies: dict[int, list[float]] = defaultdict(list)
        self._failures: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._users: dict[int, int] = {}
        environment.events.request.add_listener(self._request)  # type: ignore[no-untyped-call]
        gevent.spawn(self._watch)

    def _second(self) -> int:
        return int(time.monotonic() - self._start)

    def _request(self, response_time: float, exception: Exception | None, **_: Any) -> None:  # noqa: ANN401
        second = self._second()
        self._latencies[second].append(response_time / 1000)
        if exception is not None:
            self._failures[second][_kind_of(exception)] += 1

    def _watch(self) -> None:
        while True:
            runner = self._environment.runner
            self._users[self._second()] = runner.user_count if runner else 0
            gevent.sleep(0.5)

    def write(self, file: Path) -> None:
        """Write all seconds as JSON; times are in seconds."""
        seconds = [
            {
                "second": second,
                "users": self._users.get(second, 0),
                "failures": dict(self._failures[second]),
                "latencies": [round(value, 5) for value in self._latencies[second]],
            }
            for second in range(self._second())
        ]
        file.write_text(json.dumps(seconds))


def _kind_of(exception: Exception) -> str:
    text = str(exception)
    return "timeout" if "timed out" in text or "timeout" in text.lower() else text[:60]


@events.init.add_listener  # type: ignore[untyped-decorator]
def record(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - locust passes more
    """Keep the record, if one is wanted."""
    file = environment.parsed_options.record if environment.parsed_options else ""
    if file:
        kept = Record(environment)
        environment.events.quitting.add_listener(lambda **_: kept.write(Path(file)))  # type: ignore[no-untyped-call]
