"""The runner: one process with the model, and N front ends; Linux only.

The runner has the listeners, a socket for each front end with SO_REUSEPORT, and keeps them: so a connection that
comes while a front end starts anew waits for it, and is not lost. It learns by a pipe that a process is ready, and
each process learns by another pipe that the runner has ended, however it did.

A process that ends is started again, after a pause that grows; if it ends too often, the runner ends all. SIGHUP
replaces the front ends, one after the other: the new one is ready before the old one is told to stop. SIGTERM and
SIGINT stop the front ends, which answer what they have, and then the process with the model.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path

from .settings import CANNOT_START

logger = logging.getLogger("uvicorn.error")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a process is started again; each pause is twice the one before."""

STEADY = 30.0
"""Seconds after which a process that has ended did not end because of its start."""

MOST_FAILURES = 8
"""Ends of one process in a row, each before it was steady, after which the runner ends all."""

BACKLOG = 2048


def listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """Return sockets that listen at the same address. Raises OSError."""
    found: list[socket.socket] = []
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    for _ in range(count):
        listener = socket.socket(family, socket.SOCK_STREAM)
        found.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        address = listener.getsockname()  # with the port, if it was 0
    for listener in found:
        listener.listen(BACKLOG)
    return found


class Child:
    """A process that the runner starts, and starts again when it ends."""

    def __init__(self, name: str, command: Sequence[str], files: Sequence[int], seconds: float) -> None:
        """Initialise it; nothing is started. It inherits `files`, and has `seconds` to be ready."""
        self.name = name
        self.ready = asyncio.Event()
        self.is_over = False  # True if it is not started again
        self.process: asyncio.subprocess.Process | None = None
        self._command = command
        self._files = files
        self._seconds = seconds

    async def start(self) -> asyncio.subprocess.Process:
        """Start it, and return when it is ready, or has ended before."""
        read, write = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                "--ready",
                str(write),
                pass_fds=(*self._files, write),
                start_new_session=True,  # Ctrl-C is for the runner, which stops the others in their order
            )
        finally:
            os.close(write)
        loop = asyncio.get_running_loop()
        said: asyncio.Future[bytes] = loop.create_future()

        def readable() -> None:
            loop.remove_reader(read)
            said.set_result(os.read(read, 10))

        loop.add_reader(read, readable)
        try:
            async with asyncio.timeout(self._seconds):
                if await said:
                    self.ready.set()
                    logger.info("%s is ready: process %d", self.name.capitalize(), self.process.pid)
        except TimeoutError:
            logger.error("%s was not ready after %s s, and is killed", self.name, self._seconds)  # noqa: TRY400
            self.process.kill()
        finally:
            loop.remove_reader(read)
            os.close(read)
        return self.process

    async def stop(self, seconds: float) -> None:
        """Tell it to end, and wait; kill it if it has not ended after so many seconds."""
        self.is_over = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            logger.error("%s has not ended after %s s, and is killed", self.name, seconds)  # noqa: TRY400
            process.kill()
            await process.wait()


class Runner:
    """The processes, from their start to their end."""

    def __init__(self, given: argparse.Namespace, listening: Sequence[socket.socket], folder: Path) -> None:
        """Initialise the runner; nothing is started."""
        self._given = given
        self._listeners = listening
        # The children have its reading end, which is at its end when this process has ended.
        self._runner_ends, self._alive = os.pipe()
        self._common = ["--socket", str(folder / "model.sock"), "--path", given.path, "--app-dir", given.app_dir]
        self._common += ["--log-level", given.log_level, "--runner", str(self._runner_ends)]
        self._common += ["--alone", given.alone] if given.alone else []
        self._model = self._child("the process with the model", "model_process", ())
        self._front_ends: list[Child] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._replacing = asyncio.Lock()
        self._status = 0

    def _child(self, name: str, program: str, files: Sequence[int], *more: str) -> Child:
        command = [sys.executable, "-m", f"batchers.serving.{program}", *self._common, *more]
        return Child(name, command, (*files, self._runner_ends), self._given.start_timeout)

    def _front_end(self, number: int) -> Child:
        file = self._listeners[number].fileno()
        more = ["--fd", str(file), "--timeout-keep-alive", str(self._given.timeout_keep_alive)]
        more.append("--access-log" if self._given.access_log else "--no-access-log")
        return self._child(f"front end {number + 1}", "front_end", (file,), *more)

    async def run(self) -> int:
        """Start all, keep them running until a signal, stop all, and return the status of the runner."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._go_on(self._replace()))
        try:
            self._go_on(self._keep(self._model))
            if await self._is_ready(self._model):
                self._front_ends = [self._front_end(number) for number in range(len(self._listeners))]
                for child in self._front_ends:
                    self._go_on(self._keep(child))
                await self._stopping.wait()
        finally:
            await self._end()
        return self._status

    def _go_on(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _is_ready(self, child: Child) -> bool:
        """Wait until a process is ready for the first time; return False if all stop before."""
        waits = {asyncio.create_task(self._stopping.wait()), asyncio.create_task(child.ready.wait())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return child.ready.is_set() and not self._stopping.is_set()

    async def _keep(self, child: Child) -> None:
        """Start a process, and again whenever it ends."""
        loop = asyncio.get_running_loop()
        failures, pause = 0, FIRST_PAUSE
        while not (self._stopping.is_set() or child.is_over):
            began = loop.time()
            process = await child.start()
            status = await process.wait()
            if self._stopping.is_set() or child.is_over:
                return
            failures = 1 if loop.time() - began > STEADY else failures + 1
            pause = FIRST_PAUSE if failures == 1 else min(2 * pause, LONGEST_PAUSE)
            if status == CANNOT_START and not child.ready.is_set():
                self._fail(status)  # it has said why
            elif failures >= MOST_FAILURES:
                logger.error("%s has ended %d times in a row: all stop", child.name.capitalize(), failures)
                self._fail(1)
            else:
                text = "%s has ended with status %d, and starts again in %.1f s"
                logger.error(text, child.name.capitalize(), status, pause)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)

    def _fail(self, status: int) -> None:
        self._status = status
        self._stopping.set()

    async def _replace(self) -> None:
        """Replace the front ends, one after the other: the new one is ready before the old one stops."""
        async with self._replacing:
            for number, old in enumerate(self._front_ends):
                new = self._front_end(number)
                self._go_on(self._keep(new))
                if not await self._is_ready(new):
                    new.is_over = True
                    await new.stop(self._given.stop_timeout)
                    return
                self._front_ends[number] = new
                await old.stop(self._given.stop_timeout)

    async def _end(self) -> None:
        self._stopping.set()
        for listener in self._listeners:
            listener.close()  # a front end closes its own: then the system accepts nothing that nobody answers
        await asyncio.gather(*(child.stop(self._given.stop_timeout) for child in self._front_ends))
        await self._model.stop(self._given.stop_timeout)
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        os.close(self._alive)
        os.close(self._runner_ends)


def run(given: argparse.Namespace) -> int:
    """Run until a signal, and return the status."""
    try:
        listening = listeners(given.host, given.port, given.workers)
    except OSError as error:
        print(f"error: cannot listen at {given.host}, port {given.port}: {error}", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    folder = Path(tempfile.mkdtemp(prefix="batchers-"))
    address = listening[0].getsockname()
    logger.info("%d front ends at http://%s:%d, one process with the model", given.workers, *address[:2])
    try:
        return asyncio.run(_main(given, listening, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _main(given: argparse.Namespace, listening: Sequence[socket.socket], folder: Path) -> int:
    return await Runner(given, listening, folder).run()
