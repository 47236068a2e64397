"""One allocation fails, in whatever thread and at whatever place: its call or batch fails, and nothing hangs."""

from __future__ import annotations

import sys

import pytest

from tests.support.children import run

PROGRAM = """
import logging, sys
import _testcapi
from batchers import BatchFunctionError, create_batcher

def sync(items): return list(items)
async def soon(items): return list(items)

logging.disable(logging.CRITICAL)
backend, flavour = sys.argv[1:]
batcher = create_batcher(backend, sync if flavour == "sync" else soon)
assert batcher.call(0) == 0
refused = failed = 0
for number in range(400):
    future = None
    _testcapi.set_nomemory(number, number + 1)
    try:
        future = batcher.submit(number)
    except (MemoryError, RuntimeError):  # "can't allocate lock"
        refused += 1
    finally:
        _testcapi.remove_mem_hooks()
    try:
        assert future is None or future.result(60) == number
        assert batcher.call(1) == 1
    except (MemoryError, BatchFunctionError):  # the latter with a MemoryError as its cause
        failed += 1
    assert batcher.healthy
    assert batcher.call(2) == 2
batcher.close()
print(0 < refused < 100, failed < 40)
"""


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_one_allocation_fails(backend: str, flavour: str) -> None:
    """In a process of its own, because the hooks of CPython are for all threads."""
    pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    ended = run([sys.executable, "-c", PROGRAM, backend, flavour])
    assert (ended.returncode, ended.stdout) == (0, "True True\n"), ended.stderr[-3000:]
