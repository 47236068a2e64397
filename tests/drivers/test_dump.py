"""`dump` looks at other threads, for which CPython holds a lock of its own."""

from __future__ import annotations

import sys

from tests.support.children import run

PROGRAM = """
import gc, sys, threading, time
from batchers import create_batcher

def pause(*_):  # the collector's callbacks are Python, in which threads may switch
    time.sleep(0)

def hold(items):
    held.wait()
    return items

held = threading.Event()
gc.callbacks.append(pause)
gc.set_threshold(1)
sys.setswitchinterval(1e-6)
with create_batcher(sys.argv[1], hold) as batcher:
    future = batcher.submit(1)
    while not batcher.stats().running:
        pass
    threads = [threading.Thread(target=lambda: [batcher.dump() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held.set()
    print(future.result(), gc.isenabled())
"""


def test_many_dumps_while_the_collector_runs(backend: str) -> None:
    """CPython 3.11 hangs as a whole when a collection begins while it looks at the frames of two threads."""
    ended = run([sys.executable, "-c", PROGRAM, backend])
    assert (ended.stdout, ended.stderr) == ("1 True\n", "")
