"""Processes that tests start: each leads a session of its own, which ends with its test, with all that it started.

`guard` kills them when the test process itself is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PATIENCE = 120.0
"""Seconds for a start or an end of a process. TensorFlow alone takes several on two busy cores."""


@contextmanager
def child(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process in the project's folder; in the end kill its session, whatever is left of it."""
    process = subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, which has to come in time, and return its status and what it printed."""
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        output, errors = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)


def in_fork(code: Callable[[], object]) -> int:
    """Call `code` in a forked child and return its status: 0, or 1 if it raised. A child that hangs is killed."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            code()
        except BaseException:  # noqa: BLE001 - a child must not go on with the parent's tests
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
