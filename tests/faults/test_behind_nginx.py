"""The settings for nginx of docs/operations.md, in front of two servers. `make test-nginx` needs nginx."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.faults.client import Answer, Client, request
from tests.faults.whole import faulty, hold
from tests.support.children import ROOT, child
from tests.support.gate import until
from tests.support.server import Server, free_port

pytestmark = [pytest.mark.nginx, pytest.mark.anyio]

AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {block}
}}
"""
"""One process, and no file outside of the folder."""


@contextmanager
def nginx(folder: Path, servers: list[Server]) -> Iterator[int]:
    """Run nginx in front of these servers with what that page says; yield its port."""
    found = re.search(r"```nginx\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    assert found is not None
    block = found[1]
    port = free_port()
    changes = {f"127.0.0.1:{8000 + number}": f"127.0.0.1:{each.port}" for number, each in enumerate(servers)}
    for said, meant in (changes | {"listen 80;": f"listen 127.0.0.1:{port};"}).items():
        assert block.count(said) == 1
        block = block.replace(said, meant)
    file = folder / "nginx.conf"
    file.write_text(AROUND.format(folder=folder, block=block))
    with child(["nginx", "-p", folder, "-c", file, "-e", "stderr"]) as process:
        while True:
            assert process.poll() is None
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield port


@contextmanager
def two(backend: str, folder: Path, fault: str = "", **settings: str) -> Iterator[tuple[list[Server], int]]:
    """Run two servers and nginx before them; yield the servers and nginx's port."""
    with ExitStack() as stack:
        servers = [stack.enter_context(faulty(backend, fault, **settings)) for _ in range(2)]
        yield servers, stack.enter_context(nginx(folder, servers))


async def once(port: int) -> Answer | None:
    """Ask on a connection of its own."""
    client = Client(port)
    answer = await client.ask(request())
    client.close()
    return answer


@pytest.mark.parametrize("end", ["drained", "drained at once", "killed"])
async def test_one_of_two_ends(backend: str, end: str, tmp_path: Path) -> None:
    """While 50 clients ask. None of them sees anything but a prediction, whether it was told to stop or not."""
    settings = {"BATCHER_MAX_BATCH_SIZE": "8"} | ({"BATCHER_DRAIN_DELAY": "1"} if end == "drained" else {})
    with two(backend, tmp_path, **settings) as (servers, port):
        statuses: list[int | None] = []
        over = False

        async def ask_on() -> None:
            client = Client(port)
            while not over:
                answer = await client.ask(request())
                statuses.append(answer.status if answer is not None else None)
            client.close()

        tasks = [asyncio.create_task(ask_on()) for _ in range(50)]
        for server in servers:
            while not (await server.stats())["completed"]:
                pass
        victim = servers[0]
        if end == "killed":
            victim.process.kill()
        else:
            victim.terminate()
        status = await asyncio.to_thread(victim.wait)
        assert status == (-9 if end == "killed" else 0)
        seen = len(statuses)
        await until(lambda: len(statuses) >= seen + 500)
        over = True
        await asyncio.gather(*tasks)
        assert set(statuses) == {200}


async def test_both_are_full(backend: str, tmp_path: Path) -> None:
    """Each refusal is the server's, with Retry-After; what had a place is answered, and so is what comes then."""
    settings = {"BATCHER_MAX_BATCH_SIZE": "1", "BATCHER_MAX_QUEUE_SIZE": "1"}
    with two(backend, tmp_path, "hold", **settings) as (servers, port):
        held = [await hold(server) for server in servers]
        waiting = [asyncio.create_task(once(port)) for _ in servers]
        for each in held:
            await each.waits(1)
        refused = [await once(port) for _ in range(20)]
        for answer in refused:
            assert answer is not None
            assert answer.status == 503, answer
            assert int(answer.headers["retry-after"]) >= 1
        for each in held:
            await each.let_go()
        found = await asyncio.gather(*waiting)
        found += [await once(port) for _ in range(20)]
        assert {answer and answer.status for answer in found} == {200}
