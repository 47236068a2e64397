"""The tests themselves: a hang fails one test, and a run that is killed leaves no process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from tests.support.children import PATIENCE, ROOT, child, run
from tests.support.leaks import Belongings, check_nothing_left

CONFTEST = """
from tests.support import guard, hangs
from tests.support.hangs import pytest_runtest_protocol, pytest_timeout_set_timer

def pytest_configure(config):
    hangs.configure()
    guard.watch(leads=hasattr(config, "workerinput"))
"""

HANGS = """
import asyncio, faulthandler, signal, threading
import pytest
from tests.support import hangs

# Each test lets its time pass as soon as it hangs: a busy machine may need long to get there.

def test_in_a_thread():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    threading.Event().wait()

def test_in_a_task():
    async def forget():
        asyncio.get_running_loop().call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01)
        await asyncio.get_running_loop().create_future()
    async def main():
        await asyncio.create_task(forget(), name="the forgotten one")
    asyncio.run(main())

def test_in_c():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    faulthandler.dump_traceback_later(0.5, exit=True, file=hangs._terminal[0])
    threading.Event().wait()

def test_afterwards():
    pass
"""

STARTS = """
import os, sys, time
from pathlib import Path
from tests.support.children import child

FOREVER = "import time; print(flush=True); time.sleep(1e6)"

def test_that_is_killed(tmp_path):
    pids = [os.getppid(), os.getpid()]
    with child([sys.executable, "-c", FOREVER]) as one:
        pids.append(one.pid)
        fork = os.fork()
        if fork == 0:
            time.sleep(1e6)
        pids.append(fork)
        Path({pids!r} + ".part").write_text(" ".join(map(str, pids)))
        Path({pids!r} + ".part").rename({pids!r})
        time.sleep(1e6)
"""


def command(folder: Path, tests: str) -> list[str]:
    """Return the command that runs a file of tests in two processes, as `make test` does."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_them.py").write_text(tests)
    here = ("-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), str(folder))
    return [sys.executable, "-m", "pytest", "-n", "2", "--benchmark-disable", *here]


OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
"""The environment of a run that is no part of this one."""


def test_a_hang_fails_one_test(tmp_path: Path) -> None:
    """It shows its threads and tasks. What cannot be interrupted ends its process, and the rest goes on."""
    ended = run(command(tmp_path, HANGS), env=OUTSIDE)

    assert "3 failed, 1 passed" in ended.stdout
    assert "crashed while running 'test_them.py::test_in_c'" in ended.stdout
    assert "Task the forgotten one:" in ended.stdout
    assert "Thread MainThread:" in ended.stdout
    assert "test_in_c" in ended.stderr, "faulthandler has not shown where it was"


def lives(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[Popen[str], list[int]]]:
    """Give a run as make starts it, and its processes: pytest, one that tests, its child, and a fork of it."""
    pids = tmp_path / "pids"
    inner = command(tmp_path, STARTS.format(pids=str(pids)))
    with child(["sh", "-c", 'END_WITH=$$ "$@"; true', "sh", *inner], env=OUTSIDE, stdout=DEVNULL) as make:
        while not pids.exists():
            assert make.poll() is None
        yield make, [int(pid) for pid in pids.read_text().split()]


@pytest.mark.parametrize("victim", ["make", "pytest", "a worker", "all of them"])
def test_a_run_that_is_killed_leaves_nothing(killed: tuple[Popen[str], list[int]], victim: str) -> None:
    """Neither what its tests have started, nor what they have forked; SIGKILL gives them no time for anything."""
    make, (controller, worker, started, forked) = killed
    if victim == "all of them":
        os.killpg(make.pid, signal.SIGKILL)
    else:
        os.kill({"make": make.pid, "pytest": controller, "a worker": worker}[victim], signal.SIGKILL)
    of_the_worker = [worker, started, forked]
    for pid in of_the_worker if victim == "a worker" else [controller, *of_the_worker]:
        while lives(pid):
            pass


class ThreadOfAPool(threading.Thread):
    """Owns a pipe, and ends only when somebody waits for it, as the thread of a process pool may."""

    def __init__(self) -> None:
        super().__init__(target=self.wait)
        self.waited = threading.Event()
        self.pipe = Connection(*os.pipe())
        self.start()

    def wait(self) -> None:
        self.waited.wait(PATIENCE)

    def join(self, timeout: float | None = None) -> None:
        self.waited.set()
        super().join(timeout)


class Connection:
    """Closes its descriptors when the collector finds it."""

    def __init__(self, *descriptors: int) -> None:
        self.me = self
        for descriptor in descriptors:
            weakref.finalize(self, os.close, descriptor)


def test_what_a_thread_owned_is_not_left_behind() -> None:
    """The pipes of a thread that ends while the check waits for it are gone when the check counts them."""
    before = Belongings.now()
    ThreadOfAPool()
    check_nothing_left(before)
