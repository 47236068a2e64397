"""What others got wrong: each fault of a connection, of a peer, or of a process, on real sockets."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchers import (
    BatcherError,
    BatcherStoppedError,
    BatcherUnavailableError,
    DeadlineExceededError,
    OptionError,
    QueueFullError,
    RemoteError,
    ThreadingBatcher,
    Window,
    create_batcher,
)
from batchers.core.group_queue import Request
from batchers.remote import addresses, connect, serve
from batchers.remote.codecs import from_json, to_json
from batchers.remote.columns import pack_calls, pack_outcomes, unpack_calls
from batchers.remote.frames import CALLS, HELLO, OUTCOMES, FrameReader, encode
from batchers.remote.stream import Stream
from tests.remote.functions import echo, plus_one
from tests.support.gate import Gate, outcomes, until


class Peer:
    """The other end of a connection, by hand."""

    def __init__(self, connection: socket.socket) -> None:
        self.stream = Stream(connection, 1_000_000, 0)
        connection.settimeout(5.0)
        self.seen: list[Any] = []

    def greet(self, **about: Any) -> None:
        about = {
            "codec": "json",
            "name": "",
            "cost": False,
            "length": False,
            "healthy": True,
            "about": {},
            **about,
        }
        self.stream.greet(about)
        self.stream.flush()

    def expect(self, kind: int) -> Any:
        """Return the next frame of a kind, as JSON values."""
        while True:
            for frame in self.stream.receive():
                if frame.kind == HELLO:
                    self.stream.meet(frame)
                about, *rest = [part.data for part in frame.parts]
                columns = unpack_calls(about) if frame.kind == CALLS else from_json(about)
                self.seen.append((frame.kind, [columns, *map(from_json, rest)]))
            for place, (found, values) in enumerate(self.seen):
                if found == kind:
                    del self.seen[place]
                    return values

    def send_calls(self, numbers: list[int], *values: Any) -> None:
        requests: list[Request[Any]] = [Request(None) for _ in numbers]
        for request, number in zip(requests, numbers, strict=True):
            request.number = number
        about = pack_calls(requests, None, 0.0, with_costs=False)
        self.stream.send(CALLS, [about, *(to_json(value) for value in values)])
        self.stream.flush()

    def send_results(self, numbers: list[int], *results: Any) -> None:
        self.stream.send(OUTCOMES, [pack_outcomes(numbers, [], healthy=True), to_json(results)])
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()


class ByHand:
    """A server of which the test says every byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.peers: list[Peer] = []

    async def accept(self, *, greets: bool = True) -> Peer:
        connection, _ = await asyncio.to_thread(self.listener.accept)
        peer = Peer(connection)
        self.peers.append(peer)
        if greets:
            peer.greet()
        return peer

    def close(self) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.close()


@pytest.fixture
def by_hand(folder: Path) -> Iterator[ByHand]:
    """Give a server of which the test says every byte."""
    server = ByHand(folder / "by hand.sock")
    yield server
    server.close()


async def test_late_answers_are_dropped(by_hand: ByHand) -> None:
    """The answer to a call that has given up reaches nobody, and the next call gets its own."""
    client = connect(by_hand.path)
    late = asyncio.create_task(client.process("late", timeout=0.01))
    peer = await by_hand.accept()
    (numbers, *_), _ = await asyncio.to_thread(peer.expect, CALLS)
    with pytest.raises(DeadlineExceededError):
        await late
    next_one = asyncio.create_task(client.process("next"))
    (next_numbers, *_), items = await asyncio.to_thread(peer.expect, CALLS)
    peer.send_results(numbers, "of the late one")
    peer.send_results(next_numbers, "of the next one")

    assert items == ["next"]
    assert await next_one == "of the next one"
    assert numbers[0] < next_numbers[0]
    await client.stop()


async def test_nothing_is_sent_again(by_hand: ByHand) -> None:
    """A call whose connection is lost fails, and the next connection has other numbers and no old items."""
    client = connect(by_hand.path)
    lost = asyncio.create_task(client.process("lost"))
    peer = await by_hand.accept()
    (numbers, *_), _ = await asyncio.to_thread(peer.expect, CALLS)
    peer.close()
    with pytest.raises(BatcherUnavailableError, match="see that its process runs"):
        await lost
    assert not client.healthy

    again = await by_hand.accept()
    await until(lambda: client.healthy)
    call = asyncio.create_task(client.process("new"))
    (new_numbers, *_), items = await asyncio.to_thread(again.expect, CALLS)
    again.send_results(new_numbers, "answer")

    assert items == ["new"]
    assert new_numbers[0] > numbers[0]
    assert await call == "answer"
    await client.stop()


async def test_the_end_of_the_stream_ends_all_calls(by_hand: ByHand) -> None:
    """Coroutines, threads and groups of items, at once; until the next attempt calls fail at once."""
    client = connect(by_hand.path)
    calls = [asyncio.create_task(client.process(n)) for n in range(3)]
    calls.append(asyncio.create_task(client.process_many([4, 5])))
    futures = [client.submit(n) for n in range(3)]
    peer = await by_hand.accept()
    await asyncio.to_thread(peer.expect, CALLS)
    peer.close()
    by_hand.listener.close()

    results = await outcomes(*calls, *(asyncio.wrap_future(future) for future in futures))
    assert [type(result) for result in results] == [BatcherUnavailableError] * 7
    await until(lambda: not client.healthy)  # an attempt may be under way
    with pytest.raises(BatcherUnavailableError) as caught:
        await client.process("refused")
    assert 0 <= caught.value.retry_after <= 1.0
    await client.stop()


async def test_a_server_that_says_nothing(by_hand: ByHand) -> None:
    """A process that was stopped accepts a connection and does not greet: the attempt ends."""
    client = connect(by_hand.path, connect_timeout=0.05)
    with pytest.raises(BatcherUnavailableError, match="no answer within"):
        await client.process(1)
    assert not client.healthy
    await client.stop()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        b"".join(encode(HELLO, [b"{}"])),
        b"".join(encode(CALLS, [b"[]"])),
        b"".join(encode(HELLO, [b'{"version":99}'])),
    ],
    ids=["http", "noise", "no version", "no greeting", "another version"],
)
async def test_garbage_ends_its_connection_only(
    folder: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line in the log; all others go on."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock") as server:
        client = connect(server.path)
        assert await client.process(1) == 1
        with socket.socket(socket.AF_UNIX) as bad:
            bad.settimeout(5.0)
            bad.connect(server.path)
            bad.sendall(garbage)
            await asyncio.to_thread(_read_to_end, bad)
        assert await client.process(2) == 2
        await client.stop()
    batcher.close()
    assert "was ended" in caplog.text


def _read_to_end(connection: socket.socket) -> None:
    try:
        while connection.recv(10_000):
            pass
    except ConnectionResetError:
        pass


@pytest.mark.parametrize(
    ("numbers", "parts"),
    [([1, 1], 2), ([2, 1], 2), ([1, 2, 3], 2), ([0, 1], 2), ([1, 2], 1)],
)
async def test_numbers_are_never_used_twice(folder: Path, numbers: list[Any], parts: int) -> None:
    """A client that sends a number again, or not as many as items, is disconnected."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock") as server, socket.socket(socket.AF_UNIX) as raw:
        raw.connect(server.path)
        peer = Peer(raw)
        peer.greet()
        peer.send_calls(numbers, *([["a", "b"]] * (parts - 1)))
        with pytest.raises((EOFError, ConnectionResetError)):
            await asyncio.to_thread(peer.expect, 99)
        peer.close()
    batcher.close()


async def test_a_frame_that_is_too_large(folder: Path) -> None:
    """An item, or a result, that is larger than a frame fails its own call; what fits together travels apart."""

    def grow(items: list[Any]) -> list[Any]:
        return ["y" * item if isinstance(item, int) else item for item in items]

    batcher = create_batcher("asyncio", grow)
    with serve(batcher, folder / "s.sock", max_frame_size=200_000) as server:
        client = connect(server.path)
        with pytest.raises(OptionError, match="raise max_frame_size"):
            await client.process("x" * 300_000)
        with pytest.raises(OptionError, match="raise max_frame_size"):
            await client.process(300_000)
        items = ["x" * 90_000] * 10
        assert await asyncio.gather(*(client.process(item) for item in items)) == items
        await client.stop()
    batcher.close()


async def test_a_client_that_leaves_withdraws_its_items(folder: Path, gate: Gate) -> None:
    """What waits never runs, and the queue has room at once."""
    batcher = create_batcher("threading", gate.function("sync"), max_batch_size=1)
    with serve(batcher, folder / "s.sock") as server:
        first, second = connect(server.path), connect(server.path)
        running = asyncio.create_task(first.process("running"))
        await until(lambda: gate.started == 1)
        waiting = [asyncio.create_task(second.process(n)) for n in range(5)]
        await until(lambda: batcher.stats().queued == 5)
        await second.stop(timeout=0)
        await until(lambda: batcher.stats().queued == 0)
        assert [type(result) for result in await outcomes(*waiting)] == [BatcherStoppedError] * 5
        gate.open()
        assert await running == "running"
        assert batcher.stats().cancelled == 5
        await first.stop()
        await until(lambda: server.connections == 0)
    batcher.close()


async def test_bounds_of_both_sides(folder: Path, gate: Gate) -> None:
    """The client counts its calls without an answer; the refusal of the server comes with its `retry_after`."""
    batcher = create_batcher("threading", gate.function("sync"), max_batch_size=1, max_queue_size=2)
    with serve(batcher, folder / "s.sock") as server:
        client = connect(server.path, max_pending=4)
        calls = [asyncio.create_task(client.process("first"))]
        await until(lambda: gate.started == 1)
        calls += [asyncio.create_task(client.process(n)) for n in range(3)]
        with pytest.raises(QueueFullError, match="max_queue_size") as caught:
            await calls.pop()
        assert caught.value.retry_after == 1.0
        calls.append(asyncio.create_task(client.process("refused")))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="max_pending is 4"):
            await client.process("fifth")
        with pytest.raises(OptionError, match="split the call"):
            await client.process_many(range(5))
        await outcomes(calls.pop())
        gate.open()
        assert await asyncio.gather(*calls) == ["first", 0, 1]
        await client.stop()
    batcher.close()


async def test_a_slow_reader_stops_nobody_else(folder: Path) -> None:
    """A client that reads nothing is not read from either, so that its answers do not fill the memory."""

    def grow(items: list[Any]) -> list[str]:
        return ["y" * 50_000 for _ in items]

    batcher = create_batcher("asyncio", grow, max_queue_size=-1)
    with serve(batcher, folder / "s.sock") as server, socket.socket(socket.AF_UNIX) as raw:
        raw.connect(server.path)
        raw.setblocking(False)
        peer = Stream(raw, 1_000_000, 0)
        peer.greet({})
        for number in range(1, 100_000):
            peer.send(CALLS, [struct.pack("<IIQ", 1, 0, number), b"[0]"])
            if not peer.flush():
                break  # the server does not read any more
        else:
            pytest.fail("the server has taken calls without end")
        client = connect(server.path)
        assert len(await client.process(1)) == 50_000
        await client.stop()
        peer.close()
    batcher.close()


def test_paths(folder: Path) -> None:
    """One that is too long is refused by name; a folder that is missing is made for its user alone."""
    batcher = create_batcher("asyncio", echo)
    long = folder / ("x" * 200)
    with pytest.raises(OptionError, match=r"bytes, and 10\d are possible"):
        serve(batcher, long)
    with pytest.raises(OptionError, match="are possible"):
        connect(long)
    with serve(batcher, folder / "new" / "s.sock"):
        assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o700
    assert list((folder / "new").iterdir()) == []
    (folder / "new").chmod(0o750)
    with pytest.raises(OptionError, match="chmod 700"), serve(batcher, folder / "new" / "s.sock"):
        pass
    (folder / "file").write_text("mine")
    with pytest.raises(OptionError, match="is no socket"), serve(batcher, folder / "file"):
        pass
    assert (folder / "file").read_text() == "mine"
    batcher.close()


def test_a_stale_socket_is_replaced_and_a_live_one_is_an_error(folder: Path) -> None:
    """And a server removes its own socket only."""
    path = folder / "s.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, path) as server:
        with pytest.raises(OptionError, match="a server listens at"), serve(batcher, path):
            pass
        with connect(server.path) as client:
            assert client.call(3) == 3
        path.unlink()
        path.write_text("of somebody else")
    assert path.read_text() == "of somebody else"
    batcher.close()


def test_peers_of_another_user_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """By what the system says of them."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock") as server, socket.socket(socket.AF_UNIX) as raw:
        monkeypatch.setattr(addresses, "_CREDENTIALS", _OtherUser())
        raw.settimeout(5.0)
        raw.connect(server.path)
        assert raw.recv(100) == b""
    batcher.close()
    assert "belongs to the user" in caplog.text


class _OtherUser:
    size = struct.calcsize("iII")

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        return 1, os.getuid() + 1, 1


async def test_codecs_must_agree(folder: Path) -> None:
    """Pickle only when both ends name it."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock", codec="pickle") as server:
        for codec, text in ((None, "if you trust"), ("json", "is served with the codec 'pickle'")):
            client = connect(server.path, codec=codec)
            with pytest.raises(OptionError, match=text):
                await client.process(1)
            await client.stop()
        client = connect(server.path, codec="pickle")
        assert await client.process({1, 2}) == {1, 2}
        await client.stop()
    with pytest.raises(OptionError, match="codec must be one of json"):
        connect(server.path, codec="xml")
    batcher.close()


class Unknown(Exception):
    """A class that only the server knows."""


async def test_errors_of_the_function(folder: Path) -> None:
    """Another class than those of batchers is a RemoteError, with its name and text."""

    def fail(items: list[Any]) -> list[Any]:
        raise Unknown("no such row")

    batcher = create_batcher("asyncio", fail)
    with serve(batcher, folder / "s.sock") as server:
        client = connect(server.path)
        with pytest.raises(RemoteError) as caught:
            await client.process(1)
        await client.stop()
    batcher.close()
    assert (caught.value.type_name, caught.value.text) == ("Unknown", "no such row")


async def test_values_of_the_caller(folder: Path, gate: Gate) -> None:
    """`convert`, `group_by` and `cost` run where the caller is; only what they return travels."""
    here: list[int] = []

    def note(item: Any) -> Any:
        here.append(threading.get_ident())
        return item

    def never(item: Any) -> float:
        pytest.fail("the served batcher has called cost()")

    batcher = create_batcher("threading", gate.function("sync"), cost=never, max_batch_cost=3)
    with serve(batcher, folder / "s.sock") as server:
        client = connect(
            server.path, convert=lambda item: note(item) + 1, group_by=lambda item: ("g", item % 2), cost=note
        )
        gate.open()
        assert await asyncio.gather(*(client.process(n) for n in range(3))) == [1, 2, 3]
        with pytest.raises(BatcherError, match="max_batch_cost is 3"):
            await client.process(3)
        await client.stop()
        assert set(here) == {threading.get_ident()}
        assert all(len({item % 2 for item in batch}) == 1 for batch in gate.seen)
        lacking = connect(server.path, length=lambda _: 1.0)
        with pytest.raises(OptionError, match="has the option length"):
            await lacking.process(1)
        await lacking.stop()
    batcher.close()


async def test_questions_and_changes(folder: Path) -> None:
    """Reports of the served batcher, changes of its limits, and answers of its program."""

    async def double(payload: bytes) -> bytes:
        return payload * 2

    async def fail(_: bytes) -> bytes:
        raise Unknown("no")

    batcher = create_batcher("asyncio", echo)
    with serve(
        batcher, folder / "s.sock", about={"version": 3}, answers={"double": double, "fail": fail}
    ) as server:
        client = connect(server.path, name="mine")
        await client.connected()
        assert client.about == {"version": 3}
        assert await client.ask("double", b"ab") == b"abab"
        with pytest.raises(RemoteError, match="Unknown: no"):
            await client.ask("fail")
        with pytest.raises(OptionError, match="knows no 'missing'"):
            await client.ask("missing")
        client.reconfigure(max_batch_size=3, policy=Window(0.0))
        with pytest.raises(OptionError, match="max_batch_size must be"):
            client.reconfigure(max_batch_size=0)
        assert await client.process_many(range(7)) == list(range(7))
        assert client.stats() == batcher.stats()
        assert client.decisions() == batcher.decisions()
        assert "'mine' connected, 0 pending" in client.dump()
        await client.stop()
    batcher.close()


async def test_questions_that_are_withdrawn_or_too_large(folder: Path) -> None:
    """The server stops to answer the first kind; the second fails alone, in either direction."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(_: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    async def grow(payload: bytes) -> bytes:
        return payload * 300_000

    batcher = create_batcher("asyncio", echo)
    async with serve(
        batcher, folder / "s.sock", max_frame_size=200_000, answers={"wait": wait, "grow": grow}
    ) as server:
        client = connect(server.path)
        asking = asyncio.create_task(client.ask("wait"))
        await begun.wait()
        asking.cancel()
        await ended.wait()
        for payload in (b"x", b"x" * 300_000):
            with pytest.raises(OptionError, match="raise max_frame_size"):
                await client.ask("grow", payload)
        for timeout in ("soon", float("nan")):
            with pytest.raises(OptionError, match="a number of seconds"):
                await client.ask("grow", timeout=timeout)  # type: ignore[arg-type]
        with pytest.raises(DeadlineExceededError):
            await client.ask("wait", timeout=0.0)
        assert await client.process(1) == 1
        await client.stop()
    await batcher.stop()


@pytest.mark.race
def test_submit_races_with_close(folder: Path, threads_switch_always: None) -> None:
    """Each call is answered or refused; none hangs, and the client ends."""
    batcher = create_batcher("threading", echo)
    with serve(batcher, folder / "s.sock") as server:
        for _ in range(20):
            client = connect(server.path)
            barrier = threading.Barrier(4)
            results: list[Any] = []

            def rush(client: Any = client, barrier: Any = barrier, results: list[Any] = results) -> None:
                barrier.wait()
                for n in range(10):
                    try:
                        results.append(client.submit(n))
                    except BatcherStoppedError as error:
                        results.append(error)

            threads = [threading.Thread(target=rush) for _ in range(3)]
            for thread in threads:
                thread.start()
            barrier.wait()
            client.close()
            for thread in threads:
                thread.join()
            assert len(results) == 30
            assert all(isinstance(each, BatcherStoppedError) or each.exception(5) is None for each in results)
    batcher.close()


def test_a_call_that_comes_while_the_client_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has passed the first look, and the end has not seen it: it is refused, and the client has ended."""
    client = connect(folder / "nobody.sock")
    driver: Any = vars(client)["_Batcher__batchers_driver"]
    settle = driver._settle

    def settle_and_stop(here: Any) -> None:
        settle(here)
        client.close()

    monkeypatch.setattr(type(driver), "_settle", lambda _, here: settle_and_stop(here))
    with pytest.raises(BatcherStoppedError):
        client.submit(1)
    assert driver.stopped.done()


def test_the_last_reference_goes_under_the_lock(folder: Path) -> None:
    """As in a callback of the loop, while another thread drops the client: its end does not wait for itself."""
    client = connect(folder / "nobody.sock")
    link = vars(client)["_Batcher__batchers_driver"].link
    with link.lock:
        del client
        gc.collect()
        assert link.driver() is None
        assert link._is_closed


def test_after_a_fork(folder: Path) -> None:
    """The child makes a connection of its own, and the parent's goes on."""
    batcher = create_batcher("threading", plus_one)
    with serve(batcher, folder / "s.sock") as server, connect(server.path) as client:
        assert client.call(1) == 2
        child = os.fork()
        if not child:
            status = 1
            try:
                status = 0 if client.call(10, timeout=10) == 11 else 2
                client.close()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert client.call(2) == 3
    batcher.close()


def test_many_runs_of_a_loop(folder: Path) -> None:
    """A client outlives the loop on which it was used, and leaves no descriptor."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock") as server:
        client = connect(server.path)

        async def once(n: int) -> None:
            assert await client.process(n) == n
            with pytest.raises(DeadlineExceededError):
                await client.process(n, timeout=0)

        for n in range(5):
            asyncio.run(once(n))
        assert client.call(6) == 6
        asyncio.run(once(7))
        client.close()
    batcher.close()


def test_a_client_without_references(folder: Path) -> None:
    """Its connection ends with it."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock") as server:
        client = connect(server.path)
        assert client.call(1) == 1
        assert server.connections == 1
        del client
        while server.connections:
            pass
    batcher.close()


SERVER = """
import sys, time
from batchers import create_batcher
from batchers.remote import serve
def work(items):
    return [item + 1 for item in items]
batcher = create_batcher(sys.argv[1], work)
with serve(batcher, sys.argv[2]):
    print("ready", flush=True)
    sys.stdin.read()
batcher.close()
"""


def _process(backend: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, backend, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_process_that_is_killed(folder: Path, backend: str, end: str) -> None:
    """Calls end at once; the next process replaces the socket that it left, and the client finds it by itself."""
    path = folder / "s.sock"
    process = _process(backend, path)
    client = connect(path, timeout=10)
    assert await client.process(1) == 2
    if end == "kill":
        process.kill()
    process.communicate()
    await until(lambda: not client.healthy)
    assert path.exists() == (end == "kill")
    process = _process(backend, path)
    await until(lambda: client.healthy)
    assert await client.process(2) == 3
    process.communicate()
    await client.stop()


def test_a_reader_finds_frames_in_any_pieces() -> None:
    """Whatever the sizes of what the socket gives."""
    frames = [(CALLS, [b"", b"abc"]), (OUTCOMES, []), (CALLS, [b"x" * 1000])]
    stream = b"".join(bytes(part) for kind, parts in frames for part in encode(kind, parts))

    def refuse(offset: int, size: int) -> Any:
        raise OSError(errno.EINVAL, f"{offset}, {size}")

    for step in (1, 2, 7, 100, len(stream)):
        reader = FrameReader(10_000, refuse)
        found = [
            (frame.kind, [bytes(part.data) for part in frame.parts])
            for start in range(0, len(stream), step)
            for frame in reader.feed(stream[start : start + step])
        ]
        assert found == frames


def test_a_subclass_of_a_served_batcher(folder: Path) -> None:
    """Names of the user are free there, too."""

    class Model(ThreadingBatcher[int, int]):
        def process_batch(self, batch: list[int]) -> list[int]:
            return [item * 2 for item in batch]

        def admit(self) -> None:
            pytest.fail("the server has called a method of the user")

    with Model() as model, serve(model, folder / "s.sock") as server, connect(server.path) as client:
        assert client.call(4) == 8
