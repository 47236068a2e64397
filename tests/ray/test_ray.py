"""`batchers.integrations.ray`: as a decorator, and in the replicas of a Ray that starts by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="make test-ray installs it")
cloudpickle = pytest.importorskip("ray.cloudpickle")

from ray import serve  # noqa: E402 - as above

from batchers import OptionError  # noqa: E402
from batchers.integrations import ray as integration  # noqa: E402
from batchers.integrations.ray import Replica, batch, handlers_of, queue_policy  # noqa: E402
from tests.support.gate import Gate, until  # noqa: E402


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's loop, as a replica does."""
    return "asyncio"


# As a decorator


class Plain(Replica):
    """A deployment's class, without Ray."""

    def __init__(self) -> None:
        self.gate = Gate(lambda item: item * 2)

    @batch(max_batch_size=4, batch_wait_timeout_s=0.0)
    async def predict(self, items: list[int]) -> list[int]:
        """Double."""
        found: list[int] = await self.gate.function("async")(items)
        return found


async def test_a_queue_for_each_object() -> None:
    """Batches have the items of one object, and a batch is formed when it can run."""
    one, other = Plain(), Plain()
    calls = [asyncio.create_task(each.predict(n)) for n in range(6) for each in (one, other)]
    await until(lambda: one.gate.started == other.gate.started == 1)
    await until(lambda: one.predict.stats().queued == other.predict.stats().queued == 2)
    for each in (one, other):
        each.gate.open()
    assert sorted(await asyncio.gather(*calls)) == sorted([2 * n for n in range(6)] * 2)
    assert one.gate.seen == other.gate.seen == [[0, 1, 2, 3], [4, 5]]
    assert await one.record_autoscaling_stats() == {"batcher_queued": 0.0, "batcher_running": 0.0}


async def test_the_setters_of_ray() -> None:
    """And those of a batcher, as a whole or not at all."""
    one = Plain()
    one.predict.set_max_batch_size(2)
    one.predict.set_batch_wait_timeout_s(0.5)
    assert (one.predict.get_max_batch_size(), one.predict.get_batch_wait_timeout_s()) == (2, 0.5)
    one.reconfigure({"predict": {"batch_wait_timeout_s": 0.0}, "max_concurrent_batches": 2})
    with pytest.raises(OptionError, match="max_batch_size must be"):
        one.reconfigure({"max_batch_size": 0})
    with pytest.raises(OptionError, match="cannot change batch_size"):
        one.reconfigure({"batch_size": 3})
    one.gate.open()
    assert await asyncio.gather(*(one.predict(n) for n in range(4))) == [0, 2, 4, 6]
    assert max(map(len, one.gate.seen)) == 2
    assert Plain().predict.get_max_batch_size() == 4


async def test_sizes_of_items() -> None:
    """They are added, and the limit can change while it runs."""
    seen: list[list[int]] = []

    @batch(max_batch_size=10, batch_wait_timeout_s=0.0, batch_size_fn=sum)
    async def echo(items: list[int]) -> list[int]:
        seen.append(items)
        return items

    assert await asyncio.gather(*map(echo, [4, 4, 4, 30, 1])) == [4, 4, 4, 30, 1]
    assert all(sum(items) <= 10 or len(items) == 1 for items in seen)
    echo.set_max_batch_size(100)
    seen.clear()
    await asyncio.gather(*map(echo, [30, 30, 30]))
    assert seen == [[30, 30, 30]]


async def test_multiplexed_models_do_not_share_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of a request is its group; the function sees the one of its batch."""
    seen = []

    @batch(max_batch_size=10, batch_wait_timeout_s=0.0)
    async def echo(items: list[Any]) -> list[Any]:
        seen.append((serve.get_multiplexed_model_id(), items))
        return items

    async def ask(model: str, item: int) -> Any:
        context: Any = serve.context._serve_request_context
        context.set(serve.context._RequestContext(multiplexed_model_id=model))
        return await echo(item)

    calls = [asyncio.create_task(ask("ab"[n % 2], n)) for n in range(6)]
    assert await asyncio.gather(*calls) == list(range(6))
    assert sorted(seen) == [("a", [0, 2, 4]), ("b", [1, 3, 5])]


async def test_every_caller_has_its_own_exception() -> None:
    """Of the same class; also for a CancelledError of the function, which ends all others in Ray."""

    @batch(max_batch_size=3, batch_wait_timeout_s=0.0)
    async def fail(items: list[Any]) -> list[Any]:
        raise items[0]

    errors = await asyncio.gather(*(fail(ValueError("x")) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [ValueError] * 3
    assert len({id(error) for error in errors}) == 3
    with pytest.raises(Exception, match="CancelledError"):
        await asyncio.wait_for(fail(asyncio.CancelledError()), 10)


class Recorded:
    """A metric that keeps what it was told, by its name."""

    kept: dict[str, list[float]]

    def __init__(self, name: str, **_: Any) -> None:
        self.values = self.kept.setdefault(name, [])

    def inc(self, value: float, **_: Any) -> None:
        self.values.append(value)

    set = observe = inc


async def test_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of batches, outcomes, and what waits and runs: nothing, when all calls have ended."""
    kept: dict[str, list[float]] = {}
    monkeypatch.setattr(Recorded, "kept", kept, raising=False)
    names = dict.fromkeys(("Gauge", "Histogram", "Counter"), Recorded)
    monkeypatch.setattr(integration, "metrics", SimpleNamespace(**names))
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(deployment="d"))
    one = Plain()
    calls = [asyncio.create_task(one.predict(n)) for n in range(6)]
    await until(lambda: one.predict.stats().queued == 2)
    one.gate.open()
    await asyncio.gather(*calls)
    await until(lambda: sum(kept["batcher_items"]) == 6)
    assert kept["batcher_batch_size_items"] == [4, 2]
    assert 4 in kept["batcher_running_items"]
    assert kept["batcher_queued_items"][-1] == kept["batcher_running_items"][-1] == 0


async def test_health() -> None:
    """A replica whose batcher starts no batches any more asks for another one, and names it."""
    one = Plain()
    one.gate.open()
    assert await one.predict(1) == 2
    one.check_health()
    one.predict.batcher.healthy = False
    with pytest.raises(RuntimeError, match="the batcher of predict starts no batches any more"):
        one.check_health()


def test_generators_are_refused_by_name() -> None:
    """Their results are no list."""
    with pytest.raises(OptionError, match="stream is a generator"):

        @batch
        async def stream(items: list[int]) -> Any:
            yield items


def test_it_can_be_sent_to_a_replica() -> None:
    """Before and after its first call: the batcher stays."""
    one = Plain()
    assert handlers_of(one).keys() == {"predict"}
    kind = cloudpickle.loads(cloudpickle.dumps(Plain))
    assert kind().predict.get_max_batch_size() == 4
    found = cloudpickle.loads(cloudpickle.dumps(Plain.__dict__["predict"]))
    assert found.__doc__ == "Double."


async def test_a_limit_of_ray_that_keeps_batches_small(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, at the first call."""

    class Config:
        max_ongoing_requests = 5

    class Context:
        deployment = "Model"
        _deployment_config = Config

    monkeypatch.setattr(serve, "get_replica_context", Context)
    monkeypatch.setattr(logging.getLogger("ray.serve"), "propagate", True)
    one = Plain()
    one.predict.set_max_batch_size(10)
    one.gate.open()
    assert [await one.predict(n) for n in range(3)] == [0, 2, 4]
    (said,) = {id(record): record.getMessage() for record in caplog.records}.values()
    assert "max_ongoing_requests of Model is 5, so its batches never reach max_batch_size=10" in said


@pytest.mark.parametrize(
    ("queued", "wanted"), [([0, 0], 1), ([64, 0], 1), ([65, 0], 2), ([300, 300], 5), ([0] * 9, 1)]
)
def test_the_autoscaling_policy(queued: list[int], wanted: int) -> None:
    """Replicas for the items that wait and run, within the limits."""

    class Context:
        aggregated_metrics = {"batcher_queued": dict(enumerate(queued)), "batcher_running": {0: 0.0}}  # noqa: RUF012
        capacity_adjusted_min_replicas, capacity_adjusted_max_replicas = 1, 5

        class config:  # noqa: N801
            target_ongoing_requests = 64

    context: Any = Context()
    assert queue_policy(context)[0] == wanted


# In replicas


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Give a Ray of this machine alone, which ends with the module."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    serve.shutdown()
    ray.shutdown()


@serve.deployment(max_ongoing_requests=200, graceful_shutdown_timeout_s=20, health_check_period_s=1)
class Served(Replica):
    """A model whose answers say which process has given them."""

    @batch(max_batch_size=16, batch_wait_timeout_s=0.0)
    async def predict(self, items: list[int]) -> list[tuple[int, int]]:
        """Take 20 ms."""
        await asyncio.sleep(0.02)
        return [(2 * item, os.getpid()) for item in items]

    async def __call__(self, item: int) -> tuple[int, int]:
        """Answer one item."""
        return await self.predict(item)

    def counters(self) -> dict[str, int]:
        """Return some counters of the batcher."""
        stats = self.predict.stats()
        return {name: getattr(stats, name) for name in ("completed", "cancelled", "batches", "queued", "running")}

    def size(self) -> int:
        """Return the largest batch."""
        return self.predict.get_max_batch_size()


@pytest.fixture
def run(cluster: None) -> Iterator[Callable[..., Any]]:
    """Deploy with other options."""

    def run(**options: Any) -> Any:
        return serve.run(Served.options(**options).bind(), name="served", route_prefix=None)

    yield run
    serve.delete("served")


async def test_two_replicas_under_load(run: Callable[..., Any]) -> None:
    """Each answer goes to its own caller; callers that leave disturb nobody."""
    handle = run(num_replicas=2)

    async def ask(n: int) -> Any:
        response = handle.remote(n)
        if n % 10 == 0:
            response.cancel()
        try:
            return await response
        except (asyncio.CancelledError, ray.exceptions.RayError):
            return None

    found = await asyncio.gather(*(ask(n) for n in range(400)))
    answers = {n: answer for n, answer in enumerate(found) if answer is not None}
    assert all(n in answers for n in range(400) if n % 10)
    assert all(doubled == 2 * n for n, (doubled, _) in answers.items())
    assert len({pid for _, pid in answers.values()}) == 2
    counters = await handle.counters.remote()
    assert (counters["queued"], counters["running"]) == (0, 0)
    assert counters["batches"] < counters["completed"]


async def test_a_replica_that_is_killed(run: Callable[..., Any]) -> None:
    """Every call ends, with its answer or an error; a new replica takes over."""
    handle = run(num_replicas=2)
    _, pid = await handle.remote(1)
    calls = [asyncio.ensure_future(_outcome(handle, n)) for n in range(200)]
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    found = await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert all(answer is None or answer[0] == 2 * n for n, answer in enumerate(found))
    async with asyncio.timeout(60):
        while len({answer[1] for answer in [await _outcome(handle, n) for n in range(20)] if answer} - {pid}) < 1:
            pass


async def _outcome(handle: Any, n: int) -> Any:
    try:
        return await handle.remote(n)
    except ray.exceptions.RayError:
        return None


async def test_limits_change_and_the_end_is_graceful(run: Callable[..., Any]) -> None:
    """`user_config` reaches running replicas; with fewer of them, calls that were accepted are answered."""
    handle = run(num_replicas=2, user_config={"predict": {"max_batch_size": 8}})
    assert await handle.size.remote() == 8
    calls = [asyncio.ensure_future(_answer(handle, n)) for n in range(300)]
    await asyncio.sleep(0)
    handle = await asyncio.to_thread(run, num_replicas=1, user_config={"max_batch_size": 32})
    found = await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert [doubled for doubled, _ in found] == [2 * n for n in range(300)]
    async with asyncio.timeout(60):
        while await handle.size.remote() != 32:
            pass


async def test_more_replicas_under_load(run: Callable[..., Any]) -> None:
    """Scaling up disturbs no call, and the new replica answers, too."""
    handle = run(num_replicas=1)
    calls = [asyncio.ensure_future(_answer(handle, n)) for n in range(200)]
    await asyncio.sleep(0)
    handle = await asyncio.to_thread(run, num_replicas=2)
    found = await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert [doubled for doubled, _ in found] == [2 * n for n in range(200)]
    async with asyncio.timeout(60):
        while len({pid for _, pid in await asyncio.gather(*(_answer(handle, n) for n in range(50)))}) < 2:
            pass


async def _answer(handle: Any, n: int) -> Any:
    return await handle.remote(n)
