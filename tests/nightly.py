"""Is the test-suite green on a busy machine, and does it leave nothing? `make nightly` asks.

It takes more than an hour and a half. It runs `make test` and `make test-faults` ten times: four times alone,
three times beside busy loops, and three times beside them with `nice -n 19`. Then it kills a running `make
test` ten times, at random moments, with SIGKILL: make, pytest, or the whole process group. It prints a line for
each, and ends with status 1 if one of them is not as it should be.

The loops are in a session of their own, as another user's programs are. Linux shares the processors among
sessions first (autogroup). Without that, or in the same session, `nice -n 19` beside two busy loops on each
processor leaves a program less than a hundredth of it, and a run takes most of a day.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support import guard
from tests.support.children import ROOT, child

LOOPS = 4
NIGHT = [(0, 0)] * 4 + [(LOOPS, 0)] * 3 + [(LOOPS, 19)] * 3
"""Busy loops and niceness of each run."""

GONE = 5.0
"""Seconds after which nothing of a killed run may be left."""

LATEST = 90.0
"""Seconds after which a run is killed at the latest."""

MARK = "NIGHT"


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Let so many processes spin."""
    with ExitStack() as stack:
        for _ in range(loops):
            stack.enter_context(child([sys.executable, "-c", "while True: pass"]))
        yield


def run(loops: int, nice: int) -> bool:
    """Run the tests once; say how, for how long and with what result."""
    good = True
    for target in ("test", "test-faults"):
        start = time.monotonic()
        with busy(loops), tempfile.TemporaryFile("w+") as log:
            command = ["nice", "-n", str(nice), "make", target]
            status = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode
            log.seek(0)
            printed = log.read()
        good = good and status == 0
        results = re.findall(r"=+ (.* in .*s).* =+$", printed, re.MULTILINE) or ["no result"]
        print(
            f"make {target}, {loops} loops, nice {nice}: {results[-1]}, {time.monotonic() - start:.0f} s",
            flush=True,
        )
        if status:
            print(printed, flush=True)
    return good


def marked(mark: str) -> list[str]:
    """Return the processes that were started with the mark in their environment, and run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0") and state not in "ZX":
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def kill(number: int, seed: int) -> bool:
    """Kill a run at some moment; say whom, when, and what was left after some seconds."""
    chance = random.Random(f"{seed}-{number}")
    seconds = chance.uniform(1, LATEST)
    victim = ("make", "pytest", "group")[number % 3]
    mark = uuid.uuid4().hex
    make = subprocess.Popen(
        ["make", "test"],
        cwd=ROOT,
        env=os.environ | {MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    before = len(marked(mark))
    if victim == "make":
        make.kill()
    elif victim == "group":
        os.killpg(make.pid, signal.SIGKILL)
    else:
        os.kill(_pytest_of(make.pid), signal.SIGKILL)
    make.wait()
    time.sleep(GONE)
    left = marked(mark)
    print(f"kill {victim} after {seconds:.0f} s, with {before} processes: {len(left)} left", *left, flush=True)
    return not left


def _pytest_of(make: int) -> int:
    """Return the pytest that a shell of this make has started."""
    shell = Path(f"/proc/{make}/task/{make}/children").read_text().split()[0]
    inner = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    return int(inner[0] if inner else shell)


def main() -> int:
    """Do it all, or a part."""
    parser = argparse.ArgumentParser(prog="python -m tests.nightly", description=__doc__)
    parser.add_argument(
        "--runs", type=int, nargs="*", default=range(len(NIGHT)), help="which of the ten runs: 0 to 9"
    )
    parser.add_argument("--kills", type=int, default=10, help="how often a run is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which runs are killed")
    chosen = parser.parse_args()
    guard.watch(leads=False)  # whatever it starts ends with it
    good = [run(*NIGHT[number]) for number in chosen.runs]
    good += [kill(number, chosen.seed) for number in range(chosen.kills)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
