"""Kills whatever a test process has started, however that process ends: SIGKILL too.

Every pytest process (the one that a user starts, and each worker of pytest-xdist) starts this file as a
program, in a session of its own, so that no signal to the tests reaches it. The guard waits by pidfd for the
end of that process. Then it kills all processes that carry the mark of that process in their environment, or
belong to its process group. It is not their parent: it finds them in `/proc`, in whatever session they are. If
END_WITH is in the environment, with the number of a process (make, for instance), the tests end when that
process does.

It imports the standard library only, because it starts with every worker. Linux only, as the tests are.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

MARK = "TESTED_BY"
"""The environment variable that says which test process has started a process."""

END_WITH = "END_WITH"
"""The environment variable with the number of a process whose end is the end of the tests."""

PAUSE = 0.01
"""Seconds between two looks at what is left: a process that is killed needs a moment to be gone."""


def watch(*, leads: bool) -> None:
    """Start a guard of this process. `leads`: this process and its forks get a process group of their own."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    watched = [os.getpid()]
    if leads:
        os.setpgid(0, 0)
    elif END_WITH in os.environ:
        watched.append(int(os.environ[END_WITH]))
    os.environ[MARK] = mark
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark, *map(str, watched)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    process.returncode = 0  # it outlives this process, so nobody waits for it


def guard(mark: str, watched: list[int]) -> None:
    """Wait until a watched process has ended, then kill the first of them and all that it has started."""
    ends = []
    for pid in watched:
        with suppress(ProcessLookupError):
            ends.append(os.pidfd_open(pid))
    if len(ends) == len(watched):
        select.select(ends, [], [])
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(ends[0], signal.SIGKILL)
    while left := [pid for pid in started_by(watched[0], mark) if pid != os.getpid()]:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)


def started_by(leader: int, mark: str) -> list[int]:
    """Return the processes that have the mark in their environment, or are in the process group of `leader`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            # After the name, which may hold spaces and brackets: state, parent, process group.
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            if state not in "ZX" and (marked or int(group) == leader):
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    guard(sys.argv[1], [int(number) for number in sys.argv[2:]])
