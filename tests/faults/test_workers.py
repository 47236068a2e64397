"""`python -m batchers.serving --workers N`: one process with the model, and N front ends, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.faults.whole import SEEDS
from tests.support.children import run
from tests.support.runner import MODEL, Workers, eventually, is_running, kill, workers
from tests.support.server import Connection, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several front ends need Linux")


@pytest.fixture
def two() -> Iterator[Workers]:
    """Give two front ends."""
    with workers(2, "--alone", "/alone", model=MODEL) as found:
        yield found


async def test_answers_of_all_routes(two: Workers) -> None:
    """They are those of one process: results, errors, documents and reports. Front ends never import the model."""
    cases: list[tuple[str, Any, int, Any]] = [
        ("/predict", 3, 200, -3),
        ("/predict/", 3, 200, -3),
        ("/predict_many", [1, 2], 200, [-1, -2]),
        ("/alone", 4, 200, -4),
        ("/predict", "x", 422, "int_parsing"),
        ("/predict_many", [1, "x"], 422, "int_parsing"),
        ("/alone", "x", 422, "int_parsing"),
        ("/predict_many", [1] * 2000, 413, "too_many"),
        ("/predict", "x" * 70_000, 413, "too_large"),
    ]
    async with httpx.AsyncClient(base_url=two.url) as client:
        for path, value, status, expected in cases:
            answer = await client.post(path, json=value)
            found = answer.json()
            assert (path, answer.status_code) == (path, status)
            assert (found if status == 200 else found["detail"][0]["type"]) == expected
        late = await client.post("/predict", json=1, headers={"X-Request-Timeout": "0.000001"})
        assert late.status_code == 504
        document = (await client.get("/openapi.json")).json()
        assert document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"] == {
            "type": "integer"
        }
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        # One report for all front ends: each connection below may be with another one.
        for _ in range(10):
            async with httpx.AsyncClient(base_url=two.url) as another:
                statistics = (await another.get("/stats")).json()
                assert (statistics["completed"], statistics["backend"]) == (4, "asyncio")
                assert 'outcome="completed"} 4.0' in (await another.get("/metrics")).text
    (model,) = two.pids("model_process")
    assert len(two.pids("front_end")) == 2
    assert (two.folder / "imported by").read_text() == f"{model}\n"


async def test_new_front_ends_lose_nothing(two: Workers) -> None:
    """SIGHUP, and a front end that is killed, under load: no connection is refused or reset by the first."""
    old = set(two.pids("front_end"))
    stop = asyncio.Event()

    async def ask(number: int) -> int:
        count = 0
        while not stop.is_set():
            # A connection for each request: it may come while a front end starts anew.
            assert await Connection(two.port, "/predict").post_all([number]) == [-number]
            count += 1
        return count

    asking = [asyncio.create_task(ask(number)) for number in range(8)]
    two.process.send_signal(signal.SIGHUP)
    await eventually(lambda: len(found := set(two.pids("front_end"))) == 2 and not found & old)
    stop.set()
    assert min(await asyncio.gather(*asking)) > 0

    killed = two.pids("front_end")[0]
    kill(killed, signal.SIGKILL)
    await eventually(two.says("is ready", 1 + 2 + 2 + 1))
    assert await Connection(two.port, "/predict").post_all([5]) == [-5]
    assert any("status -9" in line for line in two.log)


async def test_the_model_process_is_killed(two: Workers) -> None:
    """Requests get 503 with Retry-After, `/readyz` says it and `/healthz` does not; then all is as before."""
    (model,) = two.pids("model_process")
    async with httpx.AsyncClient(base_url=two.url) as client:
        assert (await client.post("/predict", json=1)).json() == -1
        kill(model, signal.SIGKILL)
        await eventually(lambda: not is_running(model))
        while (await client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0)
        statuses = []
        while True:
            answer = await client.post("/predict", json=1)
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                break
            assert (answer.status_code, answer.json()) == (
                503,
                {"detail": "the process with the model is gone, or starts"},
            )
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await client.get("/healthz")).status_code == 200
        assert 503 in statuses
        await eventually(two.says("Connected to the batcher", 1))


async def test_a_stopped_model_process(two: Workers) -> None:
    """SIGSTOP ends no connection: the time limit of each request does, with 504."""
    (model,) = two.pids("model_process")
    kill(model, signal.SIGSTOP)
    async with httpx.AsyncClient(base_url=two.url) as client:
        answer = await client.post("/predict", json=1, headers={"X-Request-Timeout": "0.1"})
        assert answer.status_code == 504
        kill(model, signal.SIGCONT)
        assert (await client.post("/predict", json=2)).json() == -2


async def test_the_end(two: Workers) -> None:
    """SIGTERM answers what was accepted, and leaves nothing."""
    requests = [asyncio.create_task(Connection(two.port, "/predict").post_all(range(20))) for _ in range(8)]
    await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
    two.process.terminate()
    done = await asyncio.gather(*requests, return_exceptions=True)
    status = await asyncio.to_thread(two.process.wait)
    assert status == 0
    assert two.left() == []
    # Connections are closed between two requests, which a client cannot tell from one that is never answered.
    for found in done:
        assert found == [-n for n in range(20)] or isinstance(found, asyncio.IncompleteReadError | ConnectionError)


async def test_the_runner_is_killed(two: Workers) -> None:
    """Its processes end by themselves."""
    pids = [*two.pids("model_process"), *two.pids("front_end")]
    assert len(pids) == 3
    two.process.kill()
    await eventually(lambda: not any(map(is_running, pids)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("raise OSError('no weights')", "cannot be imported: OSError: no weights"),
        ("model = 3", "is no model"),
        (
            "class model:\n def load(self): raise OSError('no weights')\n def predict(self, items): ...",
            "load() failed",
        ),
    ],
)
def test_a_model_that_cannot_be_served(tmp_path: Any, model: str, said: str) -> None:
    """One line, and status 3, from the first start on."""
    (tmp_path / "written_by_a_test.py").write_text(model)
    command = [
        sys.executable,
        "-m",
        "batchers.serving",
        "--workers",
        "2",
        "--port",
        "0",
        "--app-dir",
        str(tmp_path),
    ]
    ended = run(command, env=environment({"BATCHER_MODEL": "written_by_a_test:model"}))
    assert ended.returncode == 3
    (line,) = [line for line in ended.stderr.splitlines() if "error:" in line]
    assert said in line


def test_wrong_arguments() -> None:
    """And a port that is taken."""
    for arguments, said in (
        (["--workers", "0"], "--workers must be 1 or more"),
        (["--host", "nowhere.invalid"], "cannot"),
    ):
        ended = run([sys.executable, "-m", "batchers.serving", *arguments], env=environment({}))
        assert ended.returncode in {2, 3}
        assert said in ended.stderr


async def test_a_model_that_ends_again_and_again() -> None:
    """It is started again, later each time, and in the end all stop with status 1."""
    model = MODEL + "\nimport sys\nif (here / 'broken').exists(): os._exit(9)\n"
    with workers(1, model=model) as found:
        (found.folder / "broken").touch()
        for pid in found.pids("model_process"):
            kill(pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await eventually(lambda: found.process.poll() is not None)
        assert found.process.poll() == 1
        assert any("has ended 8 times in a row" in line for line in found.log)
        assert found.left() == []


class Client:
    """One of many clients: it asks all the time, and knows what each request has become."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._value = number * 1_000_000
        self.outcomes: Counter[str] = Counter()
        self.ended: list[float] = []
        """The times of answers."""

    async def ask_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._value += 1
            try:
                async with asyncio.timeout(10 * LIMIT):
                    outcome = await self._ask(self._value)
            except TimeoutError:
                outcome = "hangs"
            except (OSError, asyncio.IncompleteReadError):  # its front end was killed, or all of them start
                outcome = "no connection"
                await asyncio.sleep(0.01)
            if outcome == "answer":
                self.ended.append(time.monotonic())
            self.outcomes[outcome] += 1

    async def _ask(self, value: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            body = str(value)
            head = (
                f"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-Timeout: {LIMIT}\r\nContent-Length: {len(body)}"
            )
            writer.write(f"{head}\r\n\r\n{body}".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            content = await reader.readexactly(int(answer.partition("content-length:")[2].partition("\r\n")[0]))
        finally:
            writer.close()
        status = answer.split(" ", 2)[1]
        if status == "200":
            return "answer" if json.loads(content) == -value else "wrong"
        return status


LIMIT = 1.0
"""Seconds that a client of the test below waits for an answer."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_fifty_clients_and_everything_that_dies(seed: int) -> None:
    """Every request ends within its time, with its own answer or a named error; nothing is left."""
    chance = random.Random(seed)
    with workers(2, BATCHER_TIMEOUT=str(LIMIT)) as found:
        stop = asyncio.Event()
        clients = [Client(found.port, number) for number in range(50)]
        asking = [asyncio.create_task(client.ask_until(stop)) for client in clients]

        async def answers(count: int) -> None:
            before = sum(client.outcomes["answer"] for client in clients)
            await eventually(lambda: sum(client.outcomes["answer"] for client in clients) >= before + count)

        await answers(500)
        for _ in range(4):
            ready = sum("is ready" in line for line in found.log)
            what = chance.choice(
                ["kill the model", "stop the model", "end the model", "kill a front end", "replace"]
            )
            (model,), fronts = found.pids("model_process"), found.pids("front_end")
            match what:
                case "kill the model":
                    kill(model, signal.SIGKILL)
                case "end the model":
                    kill(model, signal.SIGTERM)
                case "stop the model":
                    kill(model, signal.SIGSTOP)
                    await eventually(lambda: sum(client.outcomes["504"] for client in clients) >= 1)
                    kill(model, signal.SIGCONT)
                case "kill a front end":
                    kill(chance.choice(fronts), signal.SIGKILL)
                case "replace":
                    found.process.send_signal(signal.SIGHUP)
            if what != "stop the model":
                await eventually(found.says("is ready", ready + (2 if what == "replace" else 1)))
            await answers(500)
        stop.set()
        await asyncio.gather(*asking)
        total = sum((client.outcomes for client in clients), Counter())
        assert (total["wrong"], total["hangs"]) == (0, 0), total
        assert set(total) <= {"answer", "503", "504", "no connection"}, total
        found.process.terminate()
        assert await asyncio.to_thread(found.process.wait) == 0
        assert found.left() == []
