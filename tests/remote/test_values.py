"""What travels: codecs, arrays, and the memory that both processes share."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchers import BatcherError, RemoteError, create_batcher
from batchers.remote import arena, connect, serve
from batchers.remote.arena import Arena, PeerArena
from batchers.remote.frames import LARGE, FrameError
from tests.remote.functions import echo

needs_arena = pytest.mark.skipif(not arena.AVAILABLE, reason="shared memory without a name is a feature of Linux")


@pytest.mark.parametrize(
    ("codec", "values"),
    [
        ("json", [1, 1.5, None, True, "ü\ud800", [1, [2]], {"a": {"b": []}}]),
        ("msgpack", [1, 1.5, None, True, "ü", b"\x00\xff", [1, [2]], {"a": {"b": []}}]),
        ("bytes", [b"", b"abc", b"\x00" * 300_000]),
        ("pickle", [1j, {1, 2}, (1, "a"), range(3)]),
        ("arrays", [1, "ü", b"", b"ab", {"a": [b"x"]}, {"": 0}]),
    ],
)
async def test_values_that_come_back(folder: Path, codec: str, values: list[Any]) -> None:
    """As they were; one by one, and all in one call."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock", codec=codec) as server:
        client = connect(server.path, codec=codec)
        assert await client.process_many(values) == values
        for value in values:
            assert await client.process(value) == value
        await client.stop()
    batcher.close()


@pytest.mark.parametrize("codec", ["json", "msgpack", "bytes", "pickle", "arrays"])
async def test_values_that_cannot_travel(folder: Path, codec: str) -> None:
    """Fail their own call, in either direction; the others of the same turn are answered."""
    good: Any = b"good" if codec == "bytes" else "good"

    def spoil(items: list[Any]) -> list[Any]:
        return [_bad if item == good * 2 else item for item in items]

    batcher = create_batcher("asyncio", spoil)
    with serve(batcher, folder / "s.sock", codec=codec) as server:
        client = connect(server.path, codec=codec)
        calls = [client.process(each) for each in (good, _bad, good * 2, good)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        await client.stop()
    batcher.close()
    assert (results[0], results[3]) == (good, good)
    for result, what in ((results[1], "an item"), (results[2], "a result")):
        assert isinstance(result, BatcherError)
        assert not isinstance(result, RemoteError)
        assert f"{what} of the type function cannot travel with the codec '{codec}'" in str(result)


_bad = lambda: None  # noqa: E731 - what no codec can say


@pytest.mark.parametrize("size", [0, 1, 10, 30_000, 300_000])
@pytest.mark.parametrize("dtype", ["f4", "i8", "?", "U5", "M8[s]", "c16"])
async def test_arrays(folder: Path, size: int, dtype: str) -> None:
    """Small ones on the stream, large ones in shared memory; in lists, mappings and other shapes; read-only."""
    batcher = create_batcher("threading", echo)
    with serve(batcher, folder / "s.sock", codec="arrays") as server:
        client = connect(server.path)
        for array in (np.arange(size).astype(dtype), np.arange(2 * size).astype(dtype).reshape(2, size)[:, ::-1]):
            found = await client.process({"x": [array], "n": 1})
            (back,) = found["x"]
            assert (back.dtype, back.shape) == (array.dtype, array.shape)
            assert (back == array).all()
            assert not back.flags.writeable
        assert await client.process(np.float32(2.5)) == 2.5
        await client.stop()
    batcher.close()


async def test_no_text_of_a_user_is_an_array(folder: Path) -> None:
    """The place of an array is marked by a secret of each sender."""
    batcher = create_batcher("asyncio", echo)
    forged = {"0" * 16: [0, "<f8", [1]]}
    with serve(batcher, folder / "s.sock", codec="arrays") as server:
        client = connect(server.path)
        found = await client.process_many([np.zeros(3), forged])
        assert found[1] == forged
        await client.stop()
    batcher.close()


@needs_arena
async def test_memory_is_used_again(folder: Path) -> None:
    """More data than the arena has, also while an array of the last call is kept; if it is full, by the stream."""
    batcher = create_batcher("asyncio", echo)
    with serve(batcher, folder / "s.sock", codec="arrays", arena_size=1_000_000) as server:
        client = connect(server.path, arena_size=1_000_000)
        kept: deque[Any] = deque(maxlen=20)
        for n in range(100):
            kept.append(await client.process(np.full(50_000, n)))
            assert all((array == array[0]).all() for array in kept)
        await client.stop()
        gc.collect()
        assert [int(array[0]) for array in kept] == list(range(80, 100))
    batcher.close()


@needs_arena
def test_places_of_an_arena() -> None:
    """Places that are freed are one place again; a wrong offset is an error."""
    own = Arena(10 * LARGE)
    peer = PeerArena(os.dup(own.file), 20 * LARGE)
    offsets = [own.place(bytes([n]) * LARGE) for n in range(9)]
    assert own.place(bytes(LARGE - 1)) == -1
    assert own.place(bytes(LARGE * 2)) == -1
    for n, offset in enumerate(offsets):
        assert bytes(peer.view(offset, LARGE).data) == bytes([n]) * LARGE
    for offset in offsets[::2] + offsets[1::2]:
        own.free(offset)
    assert own.place(bytes(9 * LARGE)) == 0
    with pytest.raises(FrameError):
        own.free(64)
    for offset, size in ((-64, 10), (0, 11 * LARGE), (20 * LARGE, 1), (0, 0)):
        with pytest.raises(FrameError):
            peer.view(offset, size)
    peer.close()
    own.close()


@needs_arena
def test_memory_that_could_be_taken_away_is_refused() -> None:
    """A file that is not sealed could end the process that reads it."""
    file = os.memfd_create("test")
    os.ftruncate(file, 10_000)
    with pytest.raises(FrameError, match="not sealed"):
        PeerArena(file, 100_000)
