"""`python -m batchers.serving` with a model that a test writes, and the processes that it has started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .children import PATIENCE, child
from .server import environment

MODEL = """
import os, pathlib, time
here = pathlib.Path(__file__).parent
with (here / "imported by").open("a") as file:
    file.write(f"{os.getpid()}\\n")
def model(batch: list[int]) -> list[int]:
    time.sleep(0.002)
    return [-item for item in batch]
"""
"""It says by which processes it was imported, and answers a whole number with its opposite."""


@dataclass
class Workers:
    """A runner and its processes."""

    process: subprocess.Popen[str]
    folder: Path
    port: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self, what: str) -> list[int]:
        """Return the numbers of its processes of one kind, "model_process" or "front_end"."""
        found = []
        for each in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                if f"batchers.serving.{what}" in each.cmdline():
                    found.append(each.pid)
        return found

    def says(self, text: str, times: int = 1) -> Callable[[], bool]:
        """Return what is true as soon as the log has so many lines with a text."""
        return lambda: sum(text in line for line in self.log) >= times

    def left(self) -> list[str]:
        """Return the processes and folders that the runner has left."""
        found = []
        for each in psutil.process_iter(["cmdline"]):
            line = " ".join(each.info["cmdline"] or ())
            if str(self.folder) in line:
                found.append(line)
        return found + [str(each) for each in (self.folder / "temporary").iterdir()]


@contextmanager
def workers(count: int, *arguments: str, model: str = MODEL, **settings: str) -> Iterator[Workers]:
    """Start a runner, wait until all its processes are ready, and end it afterwards if it still runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "temporary").mkdir()
        (folder / "written_by_a_test.py").write_text(model)
        command = [sys.executable, "-m", "batchers.serving", "--workers", str(count), "--port", "0"]
        command += ["--app-dir", name, "--no-access-log", *arguments]
        settings = {"BATCHER_MODEL": "written_by_a_test:model", "TMPDIR": str(folder / "temporary"), **settings}
        with child(command, env=environment(settings), stderr=subprocess.PIPE) as process:
            found = Workers(process, folder)
            ready = threading.Event()
            reader = threading.Thread(
                target=_read, args=(found, count, ready), name="log of a runner", daemon=True
            )
            reader.start()
            try:
                assert ready.wait(PATIENCE), "\n".join(found.log)
                yield found
            finally:
                if process.poll() is None:
                    process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
        reader.join(PATIENCE)
        assert process.stderr is not None
        process.stderr.close()


def _read(found: Workers, count: int, ready: threading.Event) -> None:
    for line in found.process.stderr or ():
        found.log.append(line.rstrip())
        if "front ends at http://" in line:
            found.port = int(line.partition("http://")[2].partition(",")[0].rpartition(":")[2])
        if sum("ront end" in each and "is ready" in each for each in found.log) >= count:
            ready.set()
    ready.set()


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for a state of other processes."""
    while not condition():
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
