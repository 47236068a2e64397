"""How measurements are made: in turns, in processes of their own, and with failures told."""

from __future__ import annotations

import shutil
import sys
import time

import pytest

from benchmarks import fresh
from benchmarks.latency import client
from benchmarks.latency.open_loop import Arrivals, RefusedError, Seen, offer
from benchmarks.latency.result import Load, Run, pooled, sizes_of, summarise
from benchmarks.micro import run as micro_run
from benchmarks.micro.plan import CASES
from benchmarks.micro.run import Group, Side
from benchmarks.peers import http
from benchmarks.servers import free_port
from benchmarks.spread import Spread, clearly_differ, interleaved
from benchmarks.theory.fit import Fit

FEW = Arrivals(rate=5000, seconds=0.02, settle=0.0, seed=1)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's loop."""
    return "asyncio"


def test_turns() -> None:
    """A B, B A, and so on."""
    assert "".join(interleaved("AB", 2)) == "ABBA"
    assert "".join(interleaved("ABC", 3)) == "ABCCBAABC"


def test_spread() -> None:
    """A difference counts when it is larger than what repeats differ by."""
    near = Spread((1.0, 1.2, 1.1))
    assert not clearly_differ(near, Spread((9.0,))), "what was measured once has no spread"
    assert near.middle == 1.1
    assert near.width == pytest.approx(0.2)
    assert near.share == pytest.approx(0.2 / 1.1)
    assert Spread((0.0,)).share == 0
    assert not clearly_differ(near, Spread((1.2, 1.2)))
    assert clearly_differ(near, Spread((1.31, 1.31)))
    assert not clearly_differ(Spread((1.31, 1.31)), Spread((1.2, 1.0, 1.4)))


def test_arrivals() -> None:
    """The same seed gives the same moments; their number is what the rate says."""
    arrivals = Arrivals(rate=1000, seconds=10, settle=1, seed=3)
    moments = list(arrivals.moments())

    assert moments == list(arrivals.moments())
    assert moments == sorted(moments)
    assert 0 < moments[0] < moments[-1] < 10
    assert 9500 < len(moments) < 10500
    assert moments != list(arrivals.model_copy(update={"seed": 4}).moments())


async def test_every_call_is_made_and_counted() -> None:
    """Answers, refusals and errors."""
    made = 0

    async def call() -> None:
        nonlocal made
        made += 1
        if made == 2:
            raise RefusedError("status 503")
        if made == 3:
            raise ConnectionResetError

    seen = await offer(FEW, call)

    assert made == len(list(FEW.moments()))
    assert seen.failures == {"status 503": 1, "ConnectionResetError": 1}
    assert len(seen.latencies) == made - 2
    assert min(seen.latencies) > 0


async def test_the_time_to_settle_does_not_count() -> None:
    """Calls before it are made, and not counted."""
    made = 0

    async def call() -> None:
        nonlocal made
        made += 1
        if made == 1:
            raise ConnectionResetError

    half = FEW.model_copy(update={"settle": FEW.seconds / 2})
    seen = await offer(half, call)

    assert made == len(list(FEW.moments()))
    assert not seen.failures
    late = [moment for moment in FEW.moments() if moment >= half.settle]
    assert len(seen.latencies) == len(seen.lateness) == len(late)


async def test_a_stall_counts() -> None:
    """Calls that could not be made in time count from when they were to be made."""
    made = 0

    async def call() -> None:
        nonlocal made
        made += 1
        if made == 1:
            end = time.monotonic() + 2 * FEW.seconds
            while time.monotonic() < end:
                pass

    seen = await offer(FEW, call)

    assert seen.latencies[1] > FEW.seconds, "the second one waited for most of the stall"


def test_a_summary() -> None:
    """Percentiles are those of the answered, shares those of all; a few answers have no 99.9th percentile."""
    sizes = sizes_of((1, 1), 3.0)
    line = Fit(a=0.01, b=0.001, batches=2)
    seen = Seen([0.1] * 90)
    seen.failures["timeout"] = 10
    run = summarise(Arrivals(rate=10, seconds=10, settle=1, seed=0), seen, sizes, 1.0, 5, line)

    assert (run.offered, run.answered, run.goodput) == (100, 90, 10.0)
    assert (run.p50, run.p95, run.p99, run.p999) == (0.1, None, None, None)
    assert run.failed_share == pytest.approx(0.1)
    assert run.batches.mean == 1.5
    assert run.cpu_seconds_per_call == 0.01
    assert pooled([run, run], "p999").values == ()
    many = summarise(FEW, Seen([0.001 * n for n in range(5001)]), sizes, 1.0, 5, line)
    assert many.p999 == pytest.approx(4.995)
    nobody = summarise(FEW, Seen([], seen.failures), sizes, 1.0, 5, line)
    assert (nobody.mean, nobody.p50, nobody.failed_share) == (None, None, 1.0)
    with pytest.raises(ValueError, match="no call was made"):
        summarise(FEW, Seen(), sizes, 1.0, 5, line)


@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_open_loop_in_a_process(backend: str) -> None:
    """Every call is answered, in batches."""
    load = Load.model_validate(
        {"backend": backend, "max_batch_size": 8, "max_queue_size": 1024, "arrivals": FEW.model_dump()}
    )
    run = fresh.module("benchmarks.latency.inside", load, Run, seconds=15.0)

    assert run.answered == run.offered == len(list(FEW.moments()))
    assert run.batches.mean > 1
    assert run.mean is not None
    assert run.mean > 0.011


def test_open_loop_over_http_without_a_server() -> None:
    """Failures are counted by what they are."""
    errand = client.Errand(url=f"http://127.0.0.1:{free_port()}/optimized_predict", arrivals=FEW)
    answers = fresh.module("benchmarks.latency.client", errand, client.Answers, seconds=15.0)

    assert not answers.latencies
    assert answers.failures == {"ClientConnectorError": len(list(FEW.moments()))}


def test_processes_that_fail() -> None:
    """One line says why."""
    with pytest.raises(fresh.MeasurementError, match=r"^ValueError: why$"):
        fresh.python("-c", "raise ValueError('why')", seconds=10.0)
    with pytest.raises(fresh.MeasurementError, match=r"^took longer than 0 s$"):
        fresh.python("-c", "import threading; threading.Event().wait()", seconds=0.01)
    with pytest.raises(fresh.MeasurementError, match=r"^this printed no Load$"):
        fresh.module("this", Load.model_construct(), Load, seconds=10.0)


def test_micro_measurements() -> None:
    """A case that fails costs its own row."""
    group = Group(
        sides=[
            Side(name="floor", case=f"{CASES}::test_coroutines[asyncio-floor-64]"),
            Side(name="missing", case=f"{CASES}::test_coroutines[nothing-64]"),
        ],
        repeats=1,
    )
    found = micro_run.measure(group)

    assert found.spread("floor").middle > 0
    assert "not found" in found.failed["missing"]
    assert "missing" not in found.seconds_per_item


def test_wrk_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is named."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(fresh.MeasurementError, match="wrk is not installed: it is Debian's package wrk"):
        http.measure("mosec", 1)


def test_a_peer_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a result that says so; a server of our own that does not start is an error."""
    monkeypatch.setattr(shutil, "which", lambda _: "wrk")
    absent = http.Server(command=[sys.executable, "-m", "benchmarks.peers.apps.nothing", "PORT"])
    monkeypatch.setitem(http.SERVERS, "absent", absent)
    monkeypatch.setitem(http.SERVERS, "batchers, absent", absent)

    assert "No module named" in http.measure("absent", 1).failed
    with pytest.raises(fresh.MeasurementError, match=r"did not start: .*No module named"):
        http.measure("batchers, absent", 1)
